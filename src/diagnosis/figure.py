"""The doctor's figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from src.datasets.labels import LabelSet
from src.diagnosis.audit import SplitAudit
from src.diagnosis.costs import count_classes


def save_figure(path: Path, splits: Sequence[SplitAudit], labels: LabelSet) -> None:
    """Class shares of each split, and which class its masks show most often at each place; each has a mask."""
    figure, axes = plt.subplots(2, len(splits), figsize=(13, 8), layout="constrained", squeeze=False)
    names = [label.name for label in labels.classes]
    colors = [f"#{bytes(label.color).hex()}" for label in labels.classes]
    for column, split in enumerate(splits):
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
    """uint8 [height, width, 3] in the classes' colours; black where no mask shows a class."""
    counts = count_classes(split.masks, labels)
    colors = np.array([label.color for label in labels.classes], np.uint8)[counts.argmax(axis=0)]
    colors[counts.sum(axis=0) == 0] = 0
    return colors
