"""Optimisation: plain functions over a `TrainState`. No files, no Hydra, no console."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from src.clock import Clock
from src.device import peak_memory_mib
from src.errors import NonFiniteLossError
from src.metrics import compute_scores, count_confusion
from src.seeding import seed_step
from src.setup import Setup
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
    """Loss (mean over the images) and confusion matrix of a split."""

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
        clock = Clock(state.totals.images, setup.compute.device)
        yield from train_epoch(state, setup, log_every, clock)
        scores = _train_scores(state, setup) | clock.scores(state.totals.images)
        evaluation = evaluate(state.model, setup)
        val_scores = compute_scores(evaluation.confusion, setup.class_names)
        scores |= {"val/loss": evaluation.loss, "val/miou": val_scores.miou}
        scores |= {"val/pixel_accuracy": val_scores.pixel_accuracy, "val/class_accuracy": val_scores.class_accuracy}
        scores |= {f"val/iou/{name}": iou for name, iou in val_scores.iou.items()}
        if setup.extra_classes:
            scores["val/accuracy_all_pixels"] = val_scores.accuracy_all_pixels
        scores |= {"time/epoch_seconds": clock.elapsed(), "memory/peak_mib": peak_memory_mib(setup.compute.device)}
        state.scheduler.step()
        state.epoch, state.step = state.epoch + 1, 0
        state.totals.reset()
        score = setup.ranks.tell(scores[monitor.tag])  # speeds and times are each rank's own, and may not part them
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
        train_step(state, setup, setup.normalize(images), masks.to(setup.compute.device, non_blocking=True), num_images)
        state.step += 1
        state.totals.images += num_images
        read_now = state.step % log_every == 0 or state.step == num_steps
        loss = _read_loss(state, setup.max_skipped) if read_now else None
        yield StepRecord(state.epoch + 1, state.step, num_steps, state.totals.images, loss)
    clock.training_done()


def _read_loss(state: TrainState, max_skipped: int) -> float:
    totals = state.totals
    mean = totals.loss / (totals.images - totals.skipped_images)
    loss, bad_step = torch.stack([mean, totals.bad_step.float()]).tolist()
    if bad_step != NEVER:
        rest = f", {max_skipped + 1} steps in a row" if max_skipped else ""
        hint = "" if max_skipped else ", or training.on_nonfinite=skip if it is rare"
        raise NonFiniteLossError(
            f"epoch {state.epoch + 1}, step {int(bad_step) + 1}: the loss or its gradient is not a finite number{rest};"
            f" the weights are kept as they were before. Try a smaller optimizer.lr or precision=fp32{hint}"
        )
    return loss


@torch.no_grad()
def evaluate(model: nn.Module, setup: Setup) -> Evaluation:
    """Loss and confusion matrix of the whole validation split, each image once, however many ranks share the work."""
    setup.ranks.share_buffers(model)
    model.eval()
    device = setup.compute.device
    loss, images_seen = torch.zeros((), device=device), torch.zeros((), device=device)
    confusion = torch.zeros(setup.num_classes, setup.num_classes, dtype=torch.int64, device=device)
    for images, masks in setup.val_loader:
        images, masks = setup.normalize(images), masks.to(device, non_blocking=True)
        with setup.compute.autocast():
            logits = model(images)
        for index in range(len(images)):  # each image's own mean, so that the batch size changes nothing
            loss += setup.loss(logits[index : index + 1].float(), masks[index : index + 1].long())
        confusion += count_confusion(logits, masks, setup.ignore_index)
        images_seen += len(images)
    for counted in (loss, images_seen, confusion):
        setup.ranks.sum(counted)
    return Evaluation(loss.item() / images_seen.item(), confusion.cpu().numpy())


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
    skipped = int(totals.skipped_steps)
    counted = totals.images - int(totals.skipped_images)
    scores = {
        "train/loss": totals.loss.item() / counted if counted else math.nan,
        "train/pixel_accuracy": accuracy.pixel_accuracy,
        "train/gradient_norm": totals.gradient_norm.item() / max(state.step - skipped, 1),
        "lr": float(state.optimizer.param_groups[0]["lr"]),
    }
    if setup.max_skipped:
        scores["train/skipped_steps"] = skipped
    if setup.extra_classes:
        scores["train/accuracy_all_pixels"] = accuracy.accuracy_all_pixels
    return scores
