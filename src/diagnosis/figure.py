"""The doctor's figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from src.datasets.labels import LabelSet
from src.diagnosis.audit import SplitAudit


def save_figure(path: Path, splits: Sequence[SplitAudit], labels: LabelSet) -> None:
    """Class shares of each split, and where in the picture each split's masks show which class most often."""
    shown = [split for split in splits if split.masks]
    figure, axes = plt.subplots(2, max(len(shown), 1), figsize=(13, 8), layout="constrained", squeeze=False)
    names = [label.name for label in labels.classes]
    colors = [f"#{bytes(label.color).hex()}" for label in labels.classes]
    for column, split in enumerate(shown):
        shares = split.id_pixels[: len(names)] / max(split.id_pixels.sum(), 1) * 100
        axes[0, column].barh(names[::-1], shares[::-1], color=colors[::-1])
        axes[0, column].set_title(f"{split.name}: {len(split.pairs)} images")
        axes[0, column].set_xlabel("% of the pixels")
        axes[1, column].imshow(majority_picture(split, labels), interpolation="nearest")
        axes[1, column].set_title("most frequent class at each place")
        axes[1, column].set_axis_off()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def majority_picture(split: SplitAudit, labels: LabelSet) -> np.ndarray:
    """uint8 [height, width, 3] in the classes' colours, over the masks of the first one's size."""
    size = split.masks[0].shape
    votes = np.zeros((len(labels.classes), *size), np.int64)
    for mask in (m for m in split.masks if m.shape == size):
        for class_id in range(len(labels.classes)):
            votes[class_id] += mask == class_id
    return np.array([label.color for label in labels.classes], np.uint8)[votes.argmax(axis=0)]
