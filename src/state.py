"""What a run is at a moment: everything that a checkpoint must hold."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

NEVER = -1


class EpochTotals:
    """What has been counted in the epoch under way, kept on the device so that counting waits for nothing.

    Attributes:
        loss: Sum over the images of their batch's mean loss.
        gradient_norm: Sum over the steps.
        confusion: int64 [classes, classes], truth by prediction.
        skipped_steps: Those whose loss or gradient was not finite; they changed nothing and are in no sum.
        skipped_images: Images of these steps.
        skipped_in_a_row: Such steps up to now without a good one between, counted across epochs.
        bad_step: The step at which they were too many, or -1.
        images: Seen so far, skipped ones too.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.gradient_norm = torch.zeros((), device=device)
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.skipped_steps = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_images = torch.zeros_like(self.skipped_steps)
        self.skipped_in_a_row = torch.zeros_like(self.skipped_steps)
        self.bad_step = torch.full((), NEVER, device=device)
        self.images = 0

    def reset(self) -> None:
        """Back to the start of an epoch."""
        for tensor in (self.loss, self.gradient_norm, self.confusion, self.skipped_steps, self.skipped_images):
            tensor.zero_()
        self.bad_step.fill_(NEVER)
        self.images = 0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, for a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Copies what a checkpoint held onto this device."""
        for name, value in saved.items():
            if isinstance(value, Tensor):
                getattr(self, name).copy_(value)
            else:
                setattr(self, name, value)


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
        for name in ("model", "optimizer", "scheduler", "scaler", "totals"):
            getattr(self, name).load_state_dict(saved[name])
        for name in ("epoch", "step", "best_score", "best_epoch"):
            setattr(self, name, saved[name])
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # by the process that saved this; else the schedule warns
