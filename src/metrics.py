"""Scores from a confusion matrix: counts first, ratios once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


def count_confusion(
    logits: Float[Tensor, "batch classes h w"], masks: UInt8[Tensor, "batch h w"], ignore_index: int
) -> Int[Tensor, "classes classes"]:
    """How many pixels of each true class (row) were predicted as each class (column); stays on the device.

    Pixels whose true id is `ignore_index` are left out; every other id must be below `classes`.
    """
    num_classes = logits.shape[1]
    truth, prediction = masks.long().flatten(), logits.argmax(dim=1).flatten()
    # Ignored pixels go to a row of their own, which is cut off: no boolean indexing, so no wait for the device.
    row = torch.where(truth == ignore_index, num_classes, truth)
    cell = row * num_classes + prediction
    counts = cell.new_zeros((num_classes + 1) * num_classes).scatter_add_(0, cell, torch.ones_like(cell))  # bincount waits
    return counts[: num_classes * num_classes].view(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says of the scored classes.

    A class that does not occur in the ground truth is left out of every mean, even where it was predicted. mmsegmentation and
    torchmetrics count it as 0 as soon as one pixel is predicted as it, so that their means can be lower. The rule is a part of
    a score's protocol (`src/protocol.py`).

    Attributes:
        miou: Mean of `iou` over the classes that occur in the ground truth.
        iou: Intersection over union of each class; NaN for a class that does not occur in the ground truth.
        pixel_accuracy: Share of pixels that are right.
        class_accuracy: Mean over the classes that occur in the ground truth of the share of their pixels that are right.
        accuracy_all_pixels: Share of right pixels over every counted row, scored class or not.
        absent: Names of the classes that do not occur in the ground truth, which no mean counts.
    """

    miou: float
    iou: dict[str, float]
    pixel_accuracy: float
    class_accuracy: float
    accuracy_all_pixels: float
    absent: tuple[str, ...]


def compute_scores(confusion: Int[np.ndarray, "classes classes"], class_names: Sequence[str]) -> Scores:
    """Scores over the first `len(class_names)` classes.

    Only pixels whose truth is one of these count; predicting another class on them is wrong.
    """
    scored = confusion[: len(class_names)].astype(np.float64)
    truth = scored.sum(axis=1)
    right = np.diag(scored)
    predicted = scored.sum(axis=0)[: len(class_names)]
    present = truth > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(present, right / (truth + predicted - right), np.nan)
        accuracy = np.where(present, right / truth, np.nan)
    return Scores(
        miou=_mean(iou[present]),
        iou=dict(zip(class_names, iou.tolist(), strict=True)),
        pixel_accuracy=_ratio(right.sum(), truth.sum()),
        class_accuracy=_mean(accuracy[present]),
        accuracy_all_pixels=_ratio(np.diag(confusion).sum(), confusion.sum()),
        absent=tuple(name for name, there in zip(class_names, present, strict=True) if not there),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _ratio(part: float | np.integer, whole: float | np.integer) -> float:
    return float(part / whole) if whole else math.nan
