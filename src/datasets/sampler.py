"""In which order an epoch sees the samples: a function of (seed, epoch) alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from src.datasets.randomness import Purpose, make_generator


class EpochSampler(Sampler[Any]):  # torch's BatchSampler declares that it takes numbers only, and takes anything
    """Yields (epoch, index), so that workers, even persistent ones, know the epoch of each sample.

    Args:
        num_samples: Of the split.
        seed: The order of epoch e is drawn from (seed, e).
        shuffle: False keeps the order of the files.
    """

    def __init__(self, num_samples: int, seed: int, shuffle: bool) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.skip = 0

    def begin(self, epoch: int, skip: int = 0) -> None:
        """Sets the epoch that the next iteration draws, less its first `skip` samples (for a resume in mid-epoch)."""
        self.epoch = epoch
        self.skip = skip

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.num_samples)
        if self.shuffle:
            order = make_generator(Purpose.SHUFFLE, self.seed, self.epoch).permutation(self.num_samples)
        return iter([(self.epoch, int(index)) for index in order[self.skip :]])

    def __len__(self) -> int:
        return self.num_samples - self.skip
