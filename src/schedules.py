"""Learning rate schedules, stepped once an epoch: the warm-up that any of them may have, and those that follow a score."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    LambdaLR,
    LRScheduler,
    MultiplicativeLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from src.config import MonitorConfig
from src.errors import ConfigError

NEEDS_PYTHON = {  # what no YAML can hold
    LambdaLR: "a function",
    MultiplicativeLR: "a function",
    SequentialLR: "schedulers that share the optimizer",
    ChainedScheduler: "schedulers that share the optimizer",
}


class WarmUp(LRScheduler):
    """Multiplies a schedule by a linear rise.

    In epoch e, counted from 0, the learning rate is what the schedule alone would give, times min(1, (e + 1) / (epochs + 1)).
    The schedule always sees its own, unscaled rates, since many schedules compute a rate from the one before. Its state is
    the whole state.

    Args:
        schedule: What is scaled, at its first epoch.
        epochs: How many epochs are below the schedule's own rate.
    """

    def __init__(self, schedule: LRScheduler, epochs: int) -> None:
        self.schedule = schedule
        self.epochs = epochs
        self.optimizer: Optimizer = schedule.optimizer
        self._scale()

    def step(self, *score: float) -> None:  # type: ignore[override]
        """Goes to the next epoch; `score` is for a schedule that follows one."""
        for group, lr in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = lr
        self.schedule.step(*score)  # type: ignore[arg-type]
        self._scale()

    def _scale(self) -> None:
        factor = min(1.0, (self.schedule.last_epoch + 1) / (self.epochs + 1))
        for group, lr in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = lr * factor

    def get_last_lr(self) -> list[Any]:
        """The learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """That of the schedule."""
        return self.schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the schedule; the optimizer's own state holds the scaled learning rate."""
        self.schedule.load_state_dict(state_dict)


def follows_score(scheduler: LRScheduler) -> bool:
    """Whether the schedule is decided by the monitored score, not by the epoch alone."""
    return isinstance(scheduler.schedule if isinstance(scheduler, WarmUp) else scheduler, ReduceLROnPlateau)


def step_schedule(scheduler: LRScheduler, score: float) -> None:
    """Ends an epoch that reached this monitored score."""
    if follows_score(scheduler):
        scheduler.step(score)  # type: ignore[arg-type]
    else:
        scheduler.step()


def load_schedule(scheduler: LRScheduler, saved: dict[str, Any]) -> None:
    """Continues from a schedule's saved state."""
    if saved.keys() == {"_schedulers", "_last_lr"}:  # a ChainedScheduler, by a version that made the warm-up with it
        saved = saved["_schedulers"][0]
    scheduler.load_state_dict(dict(saved))  # CyclicLR takes a key out of it


def replay_schedule(scheduler: LRScheduler, epochs: int) -> None:
    """Steps a new schedule over so many epochs without training.

    Raises:
        ValueError: If the schedule fails, or gives a learning rate that is none, at one of them.
    """
    scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]  # else it warns that no step came first
    for epoch in range(epochs):
        if bad := [group["lr"] for group in scheduler.optimizer.param_groups if not 0 <= group["lr"] < math.inf]:
            raise ValueError(f"its learning rate is {bad[0]} after epoch {epoch}; allowed are finite numbers from 0")
        try:
            step_schedule(scheduler, 0.0)
        except Exception as error:
            raise ValueError(f"{error} (at the end of epoch {epoch + 1} of {epochs}; it is stepped once an epoch)") from None


def refuse_other_mode(path: str, mode: object, monitor: MonitorConfig) -> None:
    """Raises ConfigError if a schedule that follows the monitored score would take a better one for a worse one."""
    if mode != monitor.mode:
        raise ConfigError(
            f"{path}.mode={mode}: {monitor.mode} is better for monitor.tag={monitor.tag}, which this schedule follows; leave"
            f" {path}.mode out"
        )


def refuse_python(path: str, cls: type) -> None:
    """Raises ConfigError if a schedule of this class cannot be described in YAML."""
    if cls in NEEDS_PYTHON:
        raise ConfigError(
            f"{path}=torch.optim.lr_scheduler.{cls.__name__}: it is built from {NEEDS_PYTHON[cls]}, which no YAML can hold; use"
            " another one, or a subclass of your own under src"
        )
