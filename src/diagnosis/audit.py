"""Looks at every file of every split and collects what is wrong, instead of stopping at the first."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.datasets.files import MAX_NAMED, Pair, Picture, check_alignment, read_image, read_mask
from src.datasets.label_tables import Color
from src.datasets.labels import LabelSet
from src.datasets.reader import Source
from src.datasets.threads import in_threads
from src.errors import DataError


@dataclass
class Problems:
    """What was found: errors make training wrong, warnings are to be known.

    Attributes:
        errors: One line each.
        warnings: One line each.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def report(self, files: Sequence[Path], problem: str) -> None:
        """An error for each of the files."""
        self.errors += [f"{file}: {problem}" for file in files]


@dataclass
class Looked:
    """One pair: what could be read of it, and what is wrong with it.

    Attributes:
        pair: Its files.
        image: None if it cannot be read.
        stored: The mask as stored; None if it cannot be read.
        mask: uint8 [height, width], class ids; None if there is something wrong with the pair.
        strange: Colours of no class, taken as void, and their pixels.
        image_digest: Of the image's pixels; empty if it cannot be read.
        errors: One line each.
    """

    pair: Pair
    image: Picture | None = None
    stored: Picture | None = None
    mask: np.ndarray | None = None
    strange: dict[Color, int] = field(default_factory=dict)
    image_digest: str = ""
    errors: list[str] = field(default_factory=list)


@dataclass
class SplitAudit:
    """What one split holds.

    Attributes:
        name: `train`, `val` or `test`.
        pairs: Its files.
        sizes: `<height>x<width>` to number of images.
        mask_sizes: Likewise of masks.
        image_modes: Pillow's pixel format to number of images.
        mask_modes: Likewise of masks.
        id_pixels: int64 [256], pixels of each id.
        id_images: int64 [256], images that contain each id.
        id_image_pixels: int64 [256], pixels of the images that contain each id.
        masks: uint8 [height, width] each, of the pairs with nothing wrong, in their order.
        image_digests: Of the pixels of every readable image.
        transparent: Images that are not opaque, and how many of their pixels.
        strange: Masks with a few pixels of colours of no class, and these.
        only_void: Masks without a pixel that counts.
    """

    name: str
    pairs: list[Pair]
    sizes: Counter[str] = field(default_factory=Counter)
    mask_sizes: Counter[str] = field(default_factory=Counter)
    image_modes: Counter[str] = field(default_factory=Counter)
    mask_modes: Counter[str] = field(default_factory=Counter)
    id_pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    id_images: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    id_image_pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    masks: list[np.ndarray] = field(default_factory=list)
    image_digests: dict[Path, str] = field(default_factory=dict)
    transparent: dict[Path, int] = field(default_factory=dict)
    strange: dict[Path, dict[Color, int]] = field(default_factory=dict)
    only_void: list[Path] = field(default_factory=list)


def audit_split(source: Source, split: str, problems: Problems) -> SplitAudit:
    """Every file of the split, decoded; `problems` receives all that is wrong."""
    audit = SplitAudit(split, source.pairs(split, problems.report))
    for looked in in_threads(lambda pair: look_at(pair, source.labels), audit.pairs, f"looking at {split}"):
        problems.errors += looked.errors
        if looked.image is not None:
            audit.sizes[looked.image.size] += 1
            audit.image_modes[looked.image.mode] += 1
            audit.image_digests[looked.pair.image] = looked.image_digest
            if looked.image.transparent:
                audit.transparent[looked.pair.image] = looked.image.transparent
        if looked.stored is not None:
            audit.mask_sizes[looked.stored.size] += 1
            audit.mask_modes[looked.stored.mode] += 1
        if looked.mask is not None:
            add_mask(audit, looked, looked.mask, source.labels)
    note_oddities(audit, source.labels, problems)
    return audit


def add_mask(audit: SplitAudit, looked: Looked, mask: np.ndarray, labels: LabelSet) -> None:
    """Counts a mask with which nothing is wrong."""
    counts = np.bincount(mask.ravel(), minlength=256)
    audit.id_pixels += counts
    audit.id_images += counts > 0
    audit.id_image_pixels += (counts > 0) * counts.sum()
    audit.masks.append(mask)
    if looked.strange:
        audit.strange[looked.pair.mask] = looked.strange
    if counts[labels.ignore_index] == mask.size:
        audit.only_void.append(looked.pair.mask)


def note_oddities(audit: SplitAudit, labels: LabelSet, problems: Problems) -> None:
    """What can only be said of a split as a whole."""
    name, shares = audit.name, audit.id_pixels[: len(labels.classes)]
    if audit.transparent:
        pixels = sum(audit.transparent.values())
        problems.warnings.append(
            f"{name}: {pixels} transparent pixels, shown opaque, in {_some(audit.transparent)}; save images without transparency"
        )
    if audit.strange:
        colors = sum((Counter(found) for found in audit.strange.values()), Counter[Color]())
        listed = ", ".join(f"{color} on {pixels} pixels" for color, pixels in colors.most_common(MAX_NAMED))
        problems.warnings.append(f"{name}: colours of no class, taken as void: {listed}; in {_some(audit.strange)}")
    absent = [label.name for label, pixels in zip(labels.classes, shares, strict=True) if not pixels]
    if shares.any() and absent:
        problems.warnings.append(f"{name}: no pixel of {', '.join(absent)}")
    if audit.only_void:
        problems.warnings.append(f"{name}: all void, so that nothing is learnt from them: {_some(audit.only_void)}")


def _some(files: Iterable[Path]) -> str:
    listed = [str(file) for file in files]
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more


def look_at(pair: Pair, labels: LabelSet) -> Looked:
    """One pair, read as far as it can be."""
    looked = Looked(pair)
    try:
        looked.image = read_image(pair.image)
        looked.image_digest = hashlib.sha256(looked.image.pixels.tobytes()).hexdigest()
    except DataError as error:
        looked.errors.append(str(error))
    try:
        looked.stored = read_mask(pair.mask)
        if looked.image is not None:
            check_alignment(pair, looked.image, looked.stored)
    except DataError as error:
        looked.errors.append(str(error))
    if looked.stored is not None:
        try:
            looked.mask, looked.strange = labels.decode(looked.stored.pixels, pair.mask)
        except DataError as error:
            looked.errors.append(str(error))
    if looked.errors:
        looked.mask = None
    return looked
