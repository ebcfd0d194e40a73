"""How samples become batches: where they are kept, and which processes make them."""

import signal
from collections.abc import Iterator
from multiprocessing import get_start_method, resource_tracker
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler

from src.config import Config
from src.datasets.batches import Batches
from src.datasets.device_samples import unmovable
from src.datasets.reader import SegmentationDataset
from src.datasets.sampler import EpochSampler
from src.device import Compute
from src.ranks import Ranks
from src.signals import STOP_SIGNALS

DEVICE_SHARE = 0.25  # of a GPU's free memory that dataset.cache=auto takes for samples


def place_samples(config: Config, compute: Compute, data: SegmentationDataset) -> None:
    """Keeps the samples on the device if `dataset.cache` says so, or is `auto` and a GPU has room to spare for them."""
    if data.cache == "device":
        data.place_on(compute.device)
    elif data.cache == "auto" and compute.device.type == "cuda" and not config.loader.num_workers:
        free, _ = torch.cuda.mem_get_info(compute.device)
        one_size = len(set(data.samples.facts.shapes)) == 1
        fits = data.samples.are_kept and data.samples.num_bytes < free * DEVICE_SHARE
        if one_size and fits and not unmovable(data.augmentation):
            data.place_on(compute.device)


def build_loader(
    config: Config, compute: Compute, data: SegmentationDataset, sampler: EpochSampler, drop_last: bool
) -> DataLoader[Any]:
    """Batches in the sampler's order, made by as many workers as asked for."""
    return Loader(
        Batches(data),
        batch_size=None,  # the sampler gives whole batches
        sampler=RankShare(BatchSampler(sampler, config.loader.batch_size, drop_last), Ranks()),
        num_workers=config.loader.num_workers,
        pin_memory=compute.device.type == "cuda" and data.on_device is None,
        persistent_workers=config.loader.num_workers > 0,
        generator=torch.Generator(),  # its own, so that loading leaves torch's random state alone
    )


class Loader(DataLoader[Any]):
    """A DataLoader whose workers leave it to the training process when to stop, whoever signals them all.

    Slurm, systemd and containers send SIGTERM to every process. A worker that is stuck is ended by SIGKILL therefore, where torch
    or Python would send SIGTERM; that the training process is gone, idle ones notice by themselves.
    """

    def __iter__(self) -> Any:
        """The batches of an epoch."""
        if get_start_method() != "fork":  # its helper process, which would be started in between, lets signals through again
            resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # which workers inherit: there is no moment without
        try:
            batches = super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for worker in getattr(batches, "_workers", []):
            worker.terminate, worker._popen.terminate = worker.kill, worker._popen.kill
        return batches


class RankShare(Sampler[Any]):
    """This rank's share of each batch: the ranks together see the samples that one process alone would see, in its order."""

    def __init__(self, batches: BatchSampler, ranks: Ranks) -> None:
        self.batches = batches
        self.ranks = ranks

    def __iter__(self) -> Iterator[list[Any]]:
        shares = (batch[self.ranks.rank :: self.ranks.size] for batch in self.batches)
        return (share for share in shares if share)  # a last, small batch of validation may have none for this rank

    def __len__(self) -> int:
        return len(self.batches)
