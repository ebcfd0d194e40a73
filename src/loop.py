"""Optimisation: plain functions over a `TrainState`. No files, no Hydra, no console."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from src.clock import Clock
from src.device import peak_memory_mib, sum_type
from src.errors import NonFiniteLossError
from src.losses import sum_loss
from src.metrics import compute_scores, count_confusion
from src.schedules import step_schedule
from src.seeding import seed_step
from src.setup import Setup
from src.signals import Interrupted
from src.state import NEVER, TrainState
from src.step import train_step
from src.tags import tags_of


@runtime_checkable
class Monitor(Protocol):
    """Which score decides what is best, and whether `max` or `min` is better; by now it is one of these."""

    tag: str
    mode: str | None


@dataclass(frozen=True)
class StepRecord:
    """A training step is done. `loss` is the epoch's mean so far, read every `log_every` steps, else None."""

    epoch: int
    step: int
    num_steps: int
    images: int
    loss: float | None


@dataclass(frozen=True)
class EpochRecord:
    """An epoch is trained and validated.

    Attributes:
        epoch: Counted from 1.
        scores: Value of each tag.
        absent: Scored classes without a pixel in the validation truth; no mean counts them.
        confusion: Of validation, int64 [classes, classes], truth by prediction.
        is_best: Whether the monitored tag is better than in every epoch before.
    """

    epoch: int
    scores: dict[str, float]
    absent: tuple[str, ...]
    confusion: np.ndarray
    is_best: bool


@dataclass(frozen=True)
class Evaluation:
    """Loss and confusion matrix of a split; the loss is NaN where nothing counts."""

    loss: float
    confusion: np.ndarray


def score_tags(setup: Setup) -> list[str]:
    """The tags that every `EpochRecord` of this setup has."""
    left_out = [] if setup.max_skipped else ["train/skipped_steps"]
    left_out += [] if setup.extra_classes else ["train/accuracy_all_pixels", "val/accuracy_all_pixels"]
    return tags_of(setup.class_names, left_out)


def fit(
    state: TrainState, setup: Setup, is_done: Callable[[TrainState], bool], log_every: int, monitor: Monitor
) -> Iterator[StepRecord | EpochRecord]:
    """Trains from wherever `state` stands until it `is_done`, which is asked before each epoch.

    Yields a record after each step and each epoch. The state is whole at each yield: what is saved there continues
    exactly.

    Raises:
        NonFiniteLossError: If more than `setup.max_skipped` steps in a row had a loss or gradient that is not finite; the weights
            are those from before these steps.
    """
    assert monitor.mode is not None
    while not is_done(state):
        clock = Clock(state.totals, setup.compute.device)
        try:
            yield from train_epoch(state, setup, log_every, clock)
            evaluation = evaluate(state.model, setup)
        except Interrupted:  # while a batch was waited for: the state is that of the last step
            yield StepRecord(state.epoch + 1, state.step, state.step, state.totals.images, None)
            raise
        scores = _train_scores(state, setup) | clock.scores()
        val_scores = compute_scores(evaluation.confusion, setup.class_names)
        scores |= {"val/loss": evaluation.loss, "val/miou": val_scores.miou}
        scores |= {"val/pixel_accuracy": val_scores.pixel_accuracy, "val/class_accuracy": val_scores.class_accuracy}
        scores |= {f"val/iou/{name}": iou for name, iou in val_scores.iou.items()}
        if setup.extra_classes:
            scores["val/accuracy_all_pixels"] = val_scores.accuracy_all_pixels
        scores |= {"time/epoch_seconds": clock.elapsed(), "memory/peak_mib": peak_memory_mib(setup.compute.device)}
        score = setup.ranks.tell(scores[monitor.tag])  # speeds and times are each rank's own, and may not part them
        step_schedule(state.scheduler, score)
        state.epoch, state.step = state.epoch + 1, 0
        state.totals.reset()
        is_best = state.note_score(score, monitor.mode)
        assert scores.keys() == set(score_tags(setup))
        yield EpochRecord(state.epoch, scores, val_scores.absent, evaluation.confusion, is_best)


def train_epoch(state: TrainState, setup: Setup, log_every: int, clock: Clock) -> Iterator[StepRecord]:
    """The steps of the epoch under way that are still to be done."""
    state.model.train()
    setup.sampler.begin(state.epoch, skip=state.totals.images)
    num_steps = state.step + len(setup.train_loader)
    for images, masks in clock.waiting_for(setup.train_loader):
        num_images = min(setup.batch_size, setup.sampler.num_samples - state.totals.images)  # over all ranks
        seed_step(setup.sampler.seed, state.epoch, state.step, setup.ranks.rank)
        train_step(state, setup, setup.normalize(images), masks.to(setup.compute.device, non_blocking=True))
        state.step += 1
        state.totals.images += num_images
        read_now = state.step % log_every == 0 or state.step == num_steps
        loss = _read_loss(state, setup.max_skipped) if read_now else None
        clock.step_done()
        yield StepRecord(state.epoch + 1, state.step, num_steps, state.totals.images, loss)
    clock.training_done()


def _read_loss(state: TrainState, max_skipped: int) -> float:
    totals = state.totals
    loss, weight, bad_step = torch.stack([totals.loss, totals.loss_weight, totals.bad_step]).tolist()
    if bad_step != NEVER:
        rest = f", {max_skipped + 1} steps in a row" if max_skipped else ""
        hint = "" if max_skipped else ", or training.on_nonfinite=skip if it is rare"
        raise NonFiniteLossError(
            f"epoch {state.epoch + 1}, step {int(bad_step) + 1}: the loss or its gradient is not a finite number{rest};"
            f" the weights are kept as they were before. Try a smaller optimizer.lr or precision=fp32{hint}"
        )
    return _mean(loss, weight)


@torch.no_grad()
def evaluate(model: nn.Module, setup: Setup) -> Evaluation:
    """Loss and confusion matrix of the whole validation split, each image once, however many ranks share the work."""
    setup.ranks.share_buffers(model)
    model.eval()
    device = setup.compute.device
    loss_sums = torch.zeros(2, dtype=sum_type(device), device=device)  # numerator and denominator
    confusion = torch.zeros(setup.num_classes, setup.num_classes, dtype=torch.int64, device=device)
    for images, masks in setup.val_loader:
        images, masks = setup.normalize(images), masks.to(device, non_blocking=True)
        with setup.compute.autocast():
            logits = model(images)
        for image_logits, mask in zip(logits.split(1), masks.split(1), strict=True):  # so that no loss depends on the batch size
            loss_sums += torch.stack(sum_loss(setup.loss, image_logits, mask))
        confusion += count_confusion(logits, masks, setup.ignore_index)
    for sums in (loss_sums, confusion):
        setup.ranks.sum(sums)
    numerator, denominator = loss_sums.tolist()
    return Evaluation(_mean(numerator, denominator), confusion.cpu().numpy())


@torch.no_grad()
def predict(model: nn.Module, setup: Setup, images: Tensor) -> np.ndarray:
    """The predicted class of each pixel of uint8 images [batch, height, width, 3]: uint8 [batch, height, width]."""
    model.eval()
    with setup.compute.autocast():
        logits = model(setup.normalize(images))
    return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()


def _train_scores(state: TrainState, setup: Setup) -> dict[str, float]:
    totals = state.totals
    accuracy = compute_scores(totals.confusion.cpu().numpy(), setup.class_names)
    scores = {
        "train/loss": _mean(totals.loss.item(), totals.loss_weight.item()),
        "train/pixel_accuracy": accuracy.pixel_accuracy,
        "train/gradient_norm": _mean(totals.gradient_norm.item(), float(totals.gradient_steps)),
        "lr": float(state.optimizer.param_groups[0]["lr"]),
    }
    if setup.max_skipped:
        scores["train/skipped_steps"] = int(totals.skipped_steps)
    if setup.extra_classes:
        scores["train/accuracy_all_pixels"] = accuracy.accuracy_all_pixels
    return scores


def _mean(total: float, count: float) -> float:
    return total / count if count else math.nan
