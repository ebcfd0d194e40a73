"""The list of tags: what each score of an epoch is, in which unit, within which range, and which direction is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CLASS = "CLASS"  # stands for the name of a class


@dataclass(frozen=True)
class Tag:
    """A score as it is named in metrics files, TensorBoard and `monitor.tag`.

    Attributes:
        name: With `CLASS` in place of a class's name where there is one tag for each.
        unit: In which people read it; `points` are hundredths of a share. Empty: it has none.
        low: The smallest possible value, as stored.
        high: The largest.
        mode: Which is better, `max` or `min`; None: neither, so that nothing can be ranked by it.
        meaning: One line.
    """

    name: str
    unit: str
    low: float
    high: float
    mode: str | None
    meaning: str

    @property
    def scale(self) -> float:
        """A stored value times this is in the unit."""
        return 100.0 if self.unit == POINTS else 1.0

    def number(self, value: float) -> str:
        """A stored value in the unit, with the digits that people read."""
        digits = 1 if self.unit == POINTS else 2 if self.unit else 3
        return f"{value * self.scale:.{digits}f}"

    def amount(self, value: float) -> str:
        """`number` and the unit; where there is none, the tag."""
        return f"{self.number(value)} {self.unit or 'of ' + self.name}"

    @property
    def title(self) -> str:
        """Of an axis or a column."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def names(self, class_names: Sequence[str]) -> list[str]:
        """The tags that this entry stands for, with these classes."""
        return [self.name.replace(CLASS, name) for name in class_names] if CLASS in self.name else [self.name]


POINTS = "points"
SHARE = (POINTS, 0.0, 1.0)  # unit and range
LOSS = ("", -math.inf, math.inf)  # nats for cross-entropy; another loss has its own unit
FROM_ZERO = (0.0, math.inf)

TAGS = (
    Tag("train/loss", *LOSS, "min", "mean training loss over the epoch, as the steps saw it"),
    Tag("train/pixel_accuracy", *SHARE, "max", "share of right pixels of the scored classes, as the steps saw it"),
    Tag("train/gradient_norm", "", *FROM_ZERO, None, "mean over the steps of the L2 norm of all gradients"),
    Tag("train/skipped_steps", "", *FROM_ZERO, "min", "steps that changed nothing since their loss or gradient was not finite"),
    Tag("train/accuracy_all_pixels", *SHARE, "max", "share of right pixels of every learnt class, scored or not, in training"),
    Tag("lr", "", *FROM_ZERO, None, "learning rate of the epoch"),
    Tag(
        "val/loss",
        *LOSS,
        "min",
        "mean validation loss: over the labelled pixels, or over the images if the loss does not count pixels",
    ),
    Tag("val/miou", *SHARE, "max", "mean IoU over the scored classes that occur in validation"),
    Tag("val/pixel_accuracy", *SHARE, "max", "share of right validation pixels of the scored classes"),
    Tag("val/class_accuracy", *SHARE, "max", "mean over the scored classes of the share of their pixels that are right"),
    Tag("val/accuracy_all_pixels", *SHARE, "max", "share of right validation pixels of every learnt class, scored or not"),
    Tag(f"val/iou/{CLASS}", *SHARE, "max", "intersection over union of one class; empty where it does not occur"),
    Tag("speed/images_per_second", "images/s", *FROM_ZERO, "max", "training images a second"),
    Tag("time/epoch_seconds", "s", *FROM_ZERO, "min", "training and validation of the epoch"),
    Tag("time/data_wait_share", *SHARE, "min", "share of the training time that steps waited for their batch"),
    Tag("memory/peak_mib", "MiB", *FROM_ZERO, "min", "most memory used: on CUDA of the epoch, else of the process so far"),
)


def find_tag(name: str) -> Tag | None:
    """The entry of a tag, under the tag's own name; None if the list has none."""
    for tag in TAGS:
        prefix, is_of_class, _ = tag.name.partition(CLASS)
        if name == tag.name or (is_of_class and name.startswith(prefix) and name != prefix):
            return Tag(name, tag.unit, tag.low, tag.high, tag.mode, tag.meaning)
    return None


def describe_tag(name: str) -> Tag:
    """As `find_tag`; of a tag that the list lacks (of a run by another version), one without unit, range and direction."""
    return find_tag(name) or Tag(name, "", -math.inf, math.inf, None, "")


def tags_of(class_names: Sequence[str], left_out: Sequence[str] = ()) -> list[str]:
    """Every tag with these classes, but for those left out."""
    return [name for tag in TAGS if tag.name not in left_out for name in tag.names(class_names)]
