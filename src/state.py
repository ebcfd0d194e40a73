"""What a run is at a moment: everything that a checkpoint must hold."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.device import sum_type
from src.schedules import load_schedule

NEVER = -1
KINDS: tuple[Any, ...] = (Tensor, str, dict, (list, tuple), (bool, int, float))  # of what a state holds


class EpochTotals:
    """What has been counted in the epoch under way, kept on the device so that counting waits for nothing.

    Attributes:
        loss: Sum of the steps' numerators, over all ranks.
        loss_weight: Sum of their denominators.
        gradient_norm: Sum over the steps whose norm was finite.
        gradient_steps: How many these were; fp16 also takes steps whose gradient overflowed.
        confusion: int64 [classes, classes], truth by prediction.
        skipped_steps: Those whose loss or gradient was not finite; they changed nothing and are in no sum.
        skipped_in_a_row: Such steps up to now without a good one between, counted across epochs.
        bad_step: The step at which they were too many, or -1.
        images: Seen so far, over all ranks, skipped ones too.
        seconds: Since the epoch began, without those between an interruption and its resume.
        seconds_waited: Of these, spent waiting for data.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=sum_type(device), device=device)
        self.loss_weight = torch.zeros_like(self.loss)
        self.gradient_norm = torch.zeros_like(self.loss)
        self.gradient_steps = torch.zeros((), dtype=torch.int64, device=device)
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.skipped_steps = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_a_row = torch.zeros_like(self.skipped_steps)
        self.bad_step = torch.full((), NEVER, device=device)
        self.images = 0
        self.seconds = 0.0
        self.seconds_waited = 0.0

    def reset(self) -> None:
        """Back to the start of an epoch."""
        sums = (self.loss, self.loss_weight, self.gradient_norm, self.gradient_steps, self.confusion, self.skipped_steps)
        for tensor in sums:
            tensor.zero_()
        self.bad_step.fill_(NEVER)
        self.images = 0
        self.seconds = self.seconds_waited = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, for a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Copies what a checkpoint held onto this device."""
        for name, value in vars(self).items():
            if name not in saved:  # by an older version
                continue
            if isinstance(value, Tensor):
                value.copy_(saved[name])
            else:
                setattr(self, name, saved[name])


def complete_totals(saved: dict[str, Any], step: int) -> dict[str, Any]:
    """The totals of a checkpoint after `step` steps of its epoch, with what older versions did not save.

    Their loss was a sum over images, and they divided the sum of the norms by the number of steps.
    """
    taken = step - int(saved.get("skipped_steps", 0))
    counted = saved["images"] - int(saved.get("skipped_images", 0))
    return {"loss_weight": torch.tensor(counted), "gradient_steps": torch.tensor(taken)} | saved


@dataclass
class TrainState:
    """Everything that training changes; saved and loaded whole.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished of the epoch under way.
        best_score: Best value of the monitored tag so far; NaN before the first.
        best_epoch: Where it was reached, counted from 1; 0 before the first.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: GradScaler
    totals: EpochTotals
    epoch: int = 0
    step: int = 0
    best_score: float = field(default=math.nan)
    best_epoch: int = 0

    def __post_init__(self) -> None:
        # Else schedules warn where no step of this process came first: after a resume, or where all were skipped.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]

    def note_score(self, score: float, mode: str) -> bool:
        """Whether this epoch's score is the best so far; a tie keeps the earlier one, NaN is never best."""
        better = score > self.best_score if mode == "max" else score < self.best_score
        if better or (math.isnan(self.best_score) and not math.isnan(score)):
            self.best_score, self.best_epoch = score, self.epoch
            return True
        return False

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and containers of them only, so that it can be loaded without running code."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "totals": self.totals.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continues from what `state_dict` gave."""
        for name in ("model", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(saved[name])
        load_schedule(self.scheduler, saved["scheduler"])
        self.totals.load_state_dict(complete_totals(saved["totals"], saved["step"]))
        for name in ("epoch", "step", "best_score", "best_epoch"):
            setattr(self, name, saved[name])


def find_misfits(saved: Any, own: Any, name: str = "") -> Iterator[str]:
    """Where a saved state, or a part of one, is of another kind or shape than what would be saved now.

    Keys that only one of them has are not compared: versions differ in them.
    """
    if own is None:
        return
    kind = next((kind for kind in KINDS if isinstance(own, kind)), object)
    if not isinstance(saved, kind):
        if saved is None and isinstance(own, bool):  # an option of an optimizer that the device decides
            return
        yield f"{name} {type(saved).__name__} instead of {type(own).__name__}"
    elif isinstance(own, Tensor):
        if (saved.shape, saved.is_floating_point()) != (own.shape, own.is_floating_point()):
            yield f"{name} {list(saved.shape)} of {saved.dtype} instead of {list(own.shape)} of {own.dtype}"
    elif isinstance(own, dict):
        for key in (key for key in own if key in saved):
            yield from find_misfits(saved[key], own[key], f"{name}.{key}" if name else str(key))
    elif isinstance(own, list | tuple):
        for number, pair in enumerate(zip(saved, own, strict=False)):
            yield from find_misfits(*pair, f"{name}.{number}")


def take_snapshot(state: TrainState) -> dict[str, Any]:
    """The state as it is now, in memory of its own on the CPU."""
    return copied(state.state_dict())


def copied(value: Any) -> Any:
    """The same containers and plain values with their tensors copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):  # of any kind: a Counter is not made of pairs
        new = copy.copy(value)
        for key in new:
            new[key] = copied(new[key])
        return new
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
