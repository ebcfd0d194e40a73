"""Whole batches as the items of a data set."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from src.datasets.device_samples import Key
from src.datasets.reader import SegmentationDataset


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """A split whose items are whole batches, for a loader whose sampler gives lists of keys."""

    def __init__(self, data: SegmentationDataset) -> None:
        self.data = data

    def __getitem__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """See `SegmentationDataset.batch`; a worker's lies in shared memory, and RuntimeError says where that is full."""
        batch = self.data.batch(keys)
        if get_worker_info() is not None:  # torch would do it in a thread, whose failure leaves the training process waiting
            for tensor in batch:
                tensor.share_memory_()
        return batch
