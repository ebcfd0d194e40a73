"""Scores of predictors that have learnt nothing about shape; a network's score should be read beside them.

mIoU is the mean over the classes that occur in the truth, from one confusion matrix over the whole split; pixels
that are void, or of no class, are left out of the counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# (bits a colour channel, row bands), fine to coarse: a pixel is judged by the finest bin that knows enough pixels.
RESOLUTIONS = ((4, 16), (3, 8), (2, 1), (0, 8))
ENOUGH_PIXELS = 30
# Answers are the most frequent class after weighting each by (1 / its pixels) ** balance: 0 favours the accuracy,
# more the rare classes and often the mIoU. The best is reported, so that the bar is not set too low.
BALANCES = (0.0, 0.5, 0.75)


def majority_map_miou(
    train_masks: Iterable[np.ndarray], val_masks: Iterable[np.ndarray], num_classes: int, ignore_index: int
) -> float:
    """The mIoU in 0..1 of answering, at each place, the class that is most frequent there in the training masks.

    Args:
        train_masks: Masks [height, width] of class ids, all of one size.
        val_masks: Masks to score on, of the same size.
        num_classes: Classes are 0 to num_classes - 1; other values are left out.
        ignore_index: The value of void pixels, left out too.

    Raises:
        ValueError: If there is no mask, the sizes differ, or no pixel of the truth has a class.
    """
    train, val = stack(train_masks, "train_masks"), stack(val_masks, "val_masks")
    if train.shape[1:] != val.shape[1:]:
        raise ValueError(f"train masks are {train.shape[1:]}, val masks {val.shape[1:]}; a map by place needs one size")
    prediction = np.broadcast_to(count_by_place(train, num_classes, ignore_index).argmax(axis=0), val.shape)
    return mean_iou(confusion(prediction, val, num_classes, ignore_index))


def count_by_place(masks: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """int64 [classes, height, width]: how many of the masks [n, height, width] show each class at each place."""
    counts = np.zeros((num_classes + 1, *masks.shape[1:]), np.int64)  # the last is for what does not count
    rows, columns = np.indices(masks.shape[1:])
    for mask in masks:
        counts[np.where(counted(mask, num_classes, ignore_index), mask, num_classes), rows, columns] += 1
    return counts[:num_classes]


def colour_and_row_miou(
    train: Iterable[tuple[np.ndarray, np.ndarray]],
    val: Iterable[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
    ignore_index: int,
) -> float:
    """The mIoU in 0..1 of the best class for a pixel's colour and row alone, learnt from a histogram.

    Args:
        train: Images uint8 [height, width, 3] with their masks [height, width].
        val: Images and masks to score on.
        num_classes: Classes are 0 to num_classes - 1; other values are left out.
        ignore_index: The value of void pixels, left out too.

    Raises:
        ValueError: If a split is empty or no pixel of the truth has a class.
    """
    train_colours, train_rows, train_labels = pixels(train, "train")
    val_colours, val_rows, val_labels = pixels(val, "val")
    valid = counted(train_labels, num_classes, ignore_index)
    train_colours, train_rows, train_labels = train_colours[valid], train_rows[valid], train_labels[valid]
    scores = []
    for balance in BALANCES:
        weights = (1.0 / np.maximum(np.bincount(train_labels, minlength=num_classes), 1)) ** balance
        prediction = np.zeros(len(val_labels), dtype=np.int64)
        undecided = np.arange(len(val_labels))
        for bits, bands in RESOLUTIONS:
            table = count_by_bin(train_colours, train_rows, train_labels, bits, bands, num_classes)
            bins = bin_numbers(val_colours[undecided], val_rows[undecided], bits, bands)
            prediction[undecided] = (table * weights).argmax(axis=1)[bins]
            undecided = undecided[table.sum(axis=1)[bins] < ENOUGH_PIXELS]
        scores.append(mean_iou(confusion(prediction, val_labels, num_classes, ignore_index)))
    return max(scores)


def count_by_bin(
    colours: np.ndarray, rows: np.ndarray, labels: np.ndarray, bits: int, bands: int, num_classes: int
) -> np.ndarray:
    """How often each class occurs in each bin, [bins, classes]."""
    bins = bin_numbers(colours, rows, bits, bands)
    num_bins = bands << (3 * bits)
    return np.bincount(bins * num_classes + labels, minlength=num_bins * num_classes).reshape(num_bins, num_classes)


def bin_numbers(colours: np.ndarray, rows: np.ndarray, bits: int, bands: int) -> np.ndarray:
    """The bin of each pixel from its colour, uint8 [n, 3], and its row as a share of the height, 0..255 [n]."""
    number = rows.astype(np.int64) * bands // 256
    for channel in range(3):
        number = (number << bits) | (colours[:, channel].astype(np.int64) >> (8 - bits))
    return number


def pixels(pairs: Iterable[tuple[np.ndarray, np.ndarray]], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels of a split: colours [n, 3], rows as a share of the height in 0..255 [n], labels [n]."""
    colours, rows, labels = [], [], []
    for image, mask in pairs:
        height, width = mask.shape
        if image.shape != (height, width, 3):
            raise ValueError(f"{name}: an image of shape {image.shape} with a mask of shape {mask.shape}; sizes must agree")
        colours.append(image.reshape(-1, 3))
        rows.append(np.repeat((np.arange(height) * 256 // height).astype(np.uint8), width))
        labels.append(mask.ravel().astype(np.int64))
    if not labels:
        raise ValueError(f"{name} holds no image; a baseline needs one or more")
    return np.concatenate(colours), np.concatenate(rows), np.concatenate(labels)


def stack(masks: Iterable[np.ndarray], name: str) -> np.ndarray:
    """All masks of a split as one array [n, height, width]."""
    listed = list(masks)
    if not listed:
        raise ValueError(f"{name} holds no mask; a baseline needs one or more")
    if len({mask.shape for mask in listed}) > 1:
        raise ValueError(f"{name} holds masks of different sizes; a map by place needs one size")
    return np.stack(listed)


def counted(labels: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Where a pixel has a class and is not void."""
    return (labels >= 0) & (labels < num_classes) & (labels != ignore_index)


def confusion(prediction: np.ndarray, truth: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Pixel counts [truth, prediction] over everything that counts."""
    valid = counted(truth, num_classes, ignore_index)
    pairs = truth[valid].astype(np.int64) * num_classes + prediction[valid]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean over the classes that occur in the truth of hits over (truth or prediction)."""
    hits, truth = np.diag(matrix), matrix.sum(axis=1)
    occurs = truth > 0
    if not occurs.any():
        raise ValueError("no pixel of the truth has a class; check num_classes and ignore_index")
    return float(np.mean(hits[occurs] / (truth + matrix.sum(axis=0) - hits)[occurs]))
