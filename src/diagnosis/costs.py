"""What a score on this data set can mean: what resizing costs, what predictors without a network score, what flips destroy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.datasets.augmentation import MaskResize, resize_mask
from src.datasets.baselines import count_by_place
from src.datasets.labels import LabelSet
from src.metrics import Scores, compute_scores


class Baseline(NamedTuple):
    """Scores of a predictor that looks at nothing, in 0..1."""

    miou: float
    pixel_accuracy: float


def cost_of_size(
    masks: Sequence[np.ndarray], size: tuple[int, int], labels: LabelSet, mask_resize: MaskResize = "center"
) -> Scores:
    """What a prediction that is perfect at `size` (height, width) scores at the masks' own size.

    Masks are brought down as training does (`mask_resize`) and back up by nearest neighbour at pixel centres. Void is left out
    on both sides: a pixel does not count where the enlarged mask says void.
    """
    confusion = np.zeros((256, 256), np.int64)
    for mask in masks:
        back = resize_mask(resize_mask(mask, size, mask_resize), mask.shape)
        counted = (mask != labels.ignore_index) & (back != labels.ignore_index)
        confusion += count(mask[counted], back[counted])
    return scores_of(confusion, labels)


def one_class(train_pixels: np.ndarray, id_pixels: np.ndarray, labels: LabelSet) -> tuple[str, Baseline]:
    """The class that most of the training pixels have, and what it scores everywhere on a split with these pixels of each id."""
    number = len(labels.classes)
    best, truth = int(train_pixels[:number].argmax()), id_pixels[:number]
    accuracy = float(truth[best] / truth.sum())
    return labels.classes[best].name, Baseline(accuracy / np.count_nonzero(truth), accuracy)


def count_classes(masks: Sequence[np.ndarray], labels: LabelSet) -> np.ndarray:
    """int64 [classes, height, width]: how many masks show each class at each place, at the size of the first one."""
    size = masks[0].shape
    return count_by_place(np.stack([_fit(mask, size) for mask in masks]), len(labels.classes), labels.ignore_index)


def majority_per_pixel(train_counts: np.ndarray, scored: Sequence[np.ndarray], labels: LabelSet) -> Baseline:
    """What the class that is most frequent in training at each place scores on another split.

    Args:
        train_counts: Of `count_classes`.
        scored: Masks, at their own sizes.
        labels: What the ids mean.
    """
    majority = train_counts.argmax(axis=0).astype(np.uint8)
    confusion = np.zeros((256, 256), np.int64)
    for mask in scored:
        counted = mask != labels.ignore_index
        confusion += count(mask[counted], _fit(majority, mask.shape)[counted])
    scores = scores_of(confusion, labels)
    return Baseline(scores.miou, scores.pixel_accuracy)


def _fit(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return mask if mask.shape == size else resize_mask(mask, size)


def count(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """int64 [256, 256]: pixels of each truth (row) predicted as each id (column)."""
    return np.bincount(truth.astype(np.int64) * 256 + prediction, minlength=1 << 16).reshape(256, 256)


def scores_of(confusion: np.ndarray, labels: LabelSet) -> Scores:
    """Scores over the scored classes of a [256, 256] confusion matrix."""
    return compute_scores(confusion, [label.name for label in labels.classes])


class FlipCost(NamedTuple):
    """Bits that a pixel's place tells about its class, as the data are and once half of the images are flipped."""

    row_bits: float
    row_bits_after_vertical: float
    column_bits: float
    column_bits_after_horizontal: float


def cost_of_flips(masks: Sequence[np.ndarray], labels: LabelSet, size: tuple[int, int] = (64, 64)) -> FlipCost:
    """The mutual information of class and row, and of class and column, before and after flipping half of the images.

    Masks are looked at on a grid of `size`, so that those of other sizes can be counted together.
    """
    rows = np.zeros((size[0], len(labels.classes)), np.float64)
    columns = np.zeros((size[1], len(labels.classes)), np.float64)
    for mask in masks:
        fitted = _fit(mask, size)
        for class_id in range(len(labels.classes)):
            there = fitted == class_id
            rows[:, class_id] += there.sum(axis=1)
            columns[:, class_id] += there.sum(axis=0)
    return FlipCost(
        mutual_information(rows),
        mutual_information(rows + rows[::-1]),
        mutual_information(columns),
        mutual_information(columns + columns[::-1]),
    )


def mutual_information(counts: np.ndarray) -> float:
    """Of the two indices of a table of counts, in bits."""
    joint = counts / counts.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / independent[there])).sum())
