"""How samples become batches: where they are kept, and which processes make them."""

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator
from multiprocessing import get_start_method, resource_tracker
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from src.config import Config
from src.datasets.batches import Batches
from src.datasets.device_samples import unmovable
from src.datasets.reader import SegmentationDataset
from src.datasets.sampler import EpochSampler
from src.device import Compute
from src.errors import UserError, WorkerError
from src.ranks import Ranks
from src.signals import STOP_SIGNALS, Interrupted, received_signal

DEVICE_SHARE = 0.25  # of a GPU's free memory that dataset.cache=auto takes for samples
SILENT_SECONDS = 300  # without a batch, after which workers are taken for stuck
GRACE_SECONDS = 5  # that a batch has to come after a signal; the run then stops without it
WORKER_DIED = "DataLoader worker"  # how torch begins, or nearly, to tell it
NO_SHARED_MEMORY = "share_memory_()"  # in the traceback of a worker whose batch found no room there
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


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
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),  # its own, so that loading leaves torch's random state alone
    )


class Loader(DataLoader[Any]):
    """A DataLoader whose workers leave it to the training process when to stop, and that does not wait for them for ever.

    Slurm, systemd and containers send SIGTERM to every process. Workers do not hear it, nor Ctrl-C. They are ended by SIGKILL
    therefore, where torch or Python would send SIGTERM, and end by themselves once the training process is gone.
    """

    def __iter__(self) -> Any:
        """The batches of an epoch."""
        if self._iterator is not None:  # the workers of the epoch before: none is started
            return super().__iter__()
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

    def _get_iterator(self) -> Any:
        self.check_worker_number_rationality()
        return FromWorkers(self) if self.num_workers else super()._get_iterator()


class FromWorkers(_MultiProcessingDataLoaderIter):
    """Batches from workers, which are waited for only as long as there is hope."""

    def _get_data(self) -> Any:
        """What a worker sends next.

        Raises:
            WorkerError: If nothing comes for SILENT_SECONDS.
            Interrupted: If nothing comes for GRACE_SECONDS after a signal asked the run to stop. Several ranks stop together, or
                are ended by torchrun.
        """
        end: Exception = WorkerError(explain_worker(self._num_workers, f"no batch came for {SILENT_SECONDS} seconds"))
        seconds_since_signal = 0
        for _ in range(SILENT_SECONDS):  # counted, as a clock goes on while the process is suspended
            is_there, data = self._try_get_data(1)  # also raises RuntimeError if a worker has died
            if is_there:
                return data
            seconds_since_signal += bool(number := received_signal())
            if seconds_since_signal == GRACE_SECONDS and not Ranks().several:
                end = Interrupted(number)
                break
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else torch would make a failure of what follows
        for worker in self._workers:
            worker.kill()
        raise end


def end_with_parent(_: int) -> None:
    """In a worker, on Linux: ends it once the training process is gone, even if it is stuck. Elsewhere idle ones notice."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def worker_errors(num_workers: int) -> Iterator[None]:
    """Turns what torch says of a worker that died, or that met what a person did wrong, into one line.

    Raises:
        WorkerError: If one died, or has no shared memory to hand its batch over.
    """
    try:
        yield
    except (UserError, RuntimeError) as error:
        is_caught = str(error).startswith("Caught ")  # as torch begins, before a worker's traceback
        last_line = str(error).strip().rpartition("\n")[2]
        if is_caught and isinstance(error, UserError):
            raise type(error)(last_line.partition(": ")[2]) from error
        if WORKER_DIED in str(error) and (not is_caught or NO_SHARED_MEMORY in str(error)):
            raise WorkerError(explain_worker(num_workers, f"a worker died ({last_line})")) from error
        raise
    finally:  # at the process's end workers are ended, which torch would take for a failure
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def explain_worker(num_workers: int, what: str) -> str:
    """What became of workers, and what to do."""
    return (
        f"loader.num_workers={num_workers}: {what}. Memory may be short, or the shared memory of a container: use fewer workers,"
        " a smaller loader.batch_size, or `docker run` with a larger --shm-size"
    )


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
