"""Where the seconds of an epoch go."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader


class Clock:
    """Started when an epoch starts."""

    def __init__(self, images_before: int, device: torch.device) -> None:
        self.images_before = images_before  # of the epoch, seen by the process that this one resumes
        self.start = time.perf_counter()
        self.waited = 0.0
        self.trained = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def waiting_for(self, loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The loader's batches; counts the time that each takes to arrive."""
        batches = iter(loader)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def training_done(self) -> None:
        """The last step is done; its loss has been read, so the device has caught up."""
        self.trained = self.elapsed()

    def elapsed(self) -> float:
        """Seconds since the epoch began."""
        return time.perf_counter() - self.start

    def scores(self, images: int) -> dict[str, float]:
        """Training speed and the share of it spent waiting for data."""
        speed = (images - self.images_before) / self.trained
        return {"speed/images_per_second": speed, "time/data_wait_share": self.waited / self.trained}
