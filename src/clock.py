"""Where the seconds of an epoch go."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.state import EpochTotals


class Clock:
    """Counts an epoch's seconds into its totals; those before an interruption count too, those until the resume do not.

    Args:
        totals: Of the epoch, just begun or resumed.
        device: Its peak memory is measured from here.
    """

    def __init__(self, totals: EpochTotals, device: torch.device) -> None:
        self.totals = totals
        self.start = time.perf_counter() - totals.seconds
        self.trained = 0.0
        self.untimed_images = 0 if totals.seconds else totals.images  # older checkpoints hold images without seconds
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def waiting_for(self, loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The loader's batches; counts the time that each takes to arrive."""
        batches = iter(loader)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.totals.seconds_waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def step_done(self) -> None:
        """Brings the totals up to date, for a checkpoint."""
        self.totals.seconds = self.elapsed()

    def training_done(self) -> None:
        """The last step is done; its loss has been read, so the device has caught up."""
        self.trained = self.elapsed()

    def elapsed(self) -> float:
        """Seconds since the epoch began."""
        return time.perf_counter() - self.start

    def scores(self) -> dict[str, float]:
        """Training speed and the share of it spent waiting for data."""
        speed = (self.totals.images - self.untimed_images) / self.trained
        return {"speed/images_per_second": speed, "time/data_wait_share": self.totals.seconds_waited / self.trained}
