"""Arrays to pictures."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from src.durable import write_durably

WRONG, RIGHT, IGNORED = (220, 50, 47), (235, 235, 235), (120, 120, 120)
GAP = 4  # pixels between the pictures of a panel
COLUMNS = ("image", "truth", "prediction", "error")


def compose_panel(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, ignore_index: int, colors: np.ndarray
) -> np.ndarray:
    """Image, truth, prediction and error (wrong red, ignored grey) side by side: uint8 [height, 4 width + gaps, 3].

    Images are uint8 [height, width, 3], masks uint8 [height, width]; `colors` is uint8 [256, 3], a colour for each id.
    """
    error = np.where((truth == prediction)[..., None], RIGHT, WRONG)
    error = np.where((truth == ignore_index)[..., None], IGNORED, error).astype(np.uint8)
    return _row([image, colors[truth], colors[prediction], error])


def compose_attention(image: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
    """The image, then each gate's attention (float [h, w] in 0..1, dark to bright) at the image's size, side by side."""
    height, width = image.shape[:2]
    shown = []
    for attention in maps:  # of the padded image: enlarged by a whole factor and cropped, so that it stays aligned
        factor = -(-height // attention.shape[0])
        shown.append(attention.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width])
    return _row([image, *((colormaps["magma"](m)[..., :3] * 255).astype(np.uint8) for m in shown)])


def _row(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)


def save_rows(
    path: Path, rows: Sequence[np.ndarray], titles: Sequence[str], legend: Sequence[tuple[str, tuple[int, int, int]]] = ()
) -> None:
    """Stacks rows of one width into a PNG with column titles and a legend of class colours."""
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    picture = np.concatenate([part for row in rows for part in (row, gap)][:-1], axis=0)
    height, width = picture.shape[:2]
    figure, axes = plt.subplots(figsize=(10, 10 * height / width + 0.9))
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    for number, title in enumerate(titles):
        axes.text((number + 0.5) / len(titles), 1.01, title, transform=axes.transAxes, ha="center", va="bottom")
    if legend:
        patches = [Patch(color=f"#{bytes(color).hex()}", label=name) for name, color in legend]
        axes.legend(handles=patches, ncol=6, loc="upper center", bbox_to_anchor=(0.5, -0.01), frameon=False, fontsize=9)
    _save(figure, path, bbox_inches="tight")


def save_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Loss, mIoU and accuracy, IoU of each class, and the learning rate over the epochs, as one PNG."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    iou_tags = [tag for tag in rows[0] if tag.startswith("val/iou/")]
    _lines(axes[0, 0], rows, ["train/loss", "val/loss"], "loss")
    _lines(axes[0, 1], rows, ["val/miou", "val/pixel_accuracy", "val/class_accuracy", "train/pixel_accuracy"], "score")
    _lines(axes[1, 0], rows, iou_tags, "IoU of each class")
    _lines(axes[1, 1], rows, ["lr"], "learning rate")
    _save(figure, path)


def _save(figure: Figure, path: Path, **options: Any) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png", **options)
    plt.close(figure)
    write_durably(path, lambda file: file.write(picture.getvalue()))


def _lines(axes: Axes, rows: Sequence[dict[str, Any]], tags: Sequence[str], title: str) -> None:
    epochs = [row["epoch"] for row in rows]
    if len(tags) > 10:  # more lines than matplotlib has colours of its own
        axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
    for tag in tags:
        values = [np.nan if row[tag] is None else row[tag] for row in rows]
        axes.plot(epochs, values, marker="." if len(rows) < 30 else None, label=tag.removeprefix("val/iou/"))
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncol=2 if len(tags) > 4 else 1, framealpha=0.5)
