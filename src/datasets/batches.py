"""Whole batches as the items of a data set."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from src.datasets.device_samples import Key
from src.datasets.reader import SegmentationDataset


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """A split whose items are whole batches, for a loader whose sampler gives lists of keys."""

    def __init__(self, data: SegmentationDataset) -> None:
        self.data = data

    def __getitem__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """See `SegmentationDataset.batch`."""
        return self.data.batch(keys)
