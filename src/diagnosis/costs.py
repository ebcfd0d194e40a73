"""What a score on this data set can mean: what resizing costs, what predictors without a network score, what flips destroy."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from src.datasets.augmentation import resize
from src.datasets.labels import LabelSet
from src.metrics import Scores, compute_scores


class Baseline(NamedTuple):
    """Scores of a predictor that looks at nothing, in 0..1."""

    miou: float
    pixel_accuracy: float


def cost_of_size(masks: Sequence[np.ndarray], size: tuple[int, int], labels: LabelSet) -> Scores:
    """What a prediction that is perfect at `size` (height, width) scores at the masks' own size.

    Masks are brought down as training does and back up by nearest neighbour at pixel centres. Void is left out on both sides:
    where the enlarged mask says void, the nearest class that it does know is not asked for, the pixel just does not count.
    """
    confusion = np.zeros((256, 256), np.int64)
    for mask in masks:
        height, width = mask.shape
        _, small = resize(np.empty((height, width, 3), np.uint8), mask, size)
        back = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        counted = (mask != labels.ignore_index) & (back != labels.ignore_index)
        confusion += count(mask[counted], back[counted])
    return scores_of(confusion, labels)


def one_class(id_pixels: np.ndarray, labels: LabelSet) -> tuple[str, Baseline]:
    """The best class to answer everywhere on a split with these pixels of each id, and what that scores."""
    truth = id_pixels[: len(labels.classes)]
    best = int(truth.argmax())
    accuracy = float(truth[best] / truth.sum())
    return labels.classes[best].name, Baseline(accuracy / np.count_nonzero(truth), accuracy)


def majority_per_pixel(train: Sequence[np.ndarray], scored: Sequence[np.ndarray], labels: LabelSet) -> Baseline:
    """What the class that is most frequent in training at each place scores on another split.

    Masks of other sizes are brought to that of the first scored mask.
    """
    size = scored[0].shape
    votes = np.zeros((len(labels.classes), *size), np.int64)
    for mask in train:
        fitted = _fit(mask, size)
        for class_id in range(len(labels.classes)):
            votes[class_id] += fitted == class_id
    prediction = votes.argmax(axis=0).astype(np.uint8)
    confusion = np.zeros((256, 256), np.int64)
    for mask in scored:
        fitted = _fit(mask, size)
        counted = fitted != labels.ignore_index
        confusion += count(fitted[counted], prediction[counted])
    scores = scores_of(confusion, labels)
    return Baseline(scores.miou, scores.pixel_accuracy)


def _fit(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return mask if mask.shape == size else cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


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
