"""Looks at every file of every split and collects what is wrong, instead of stopping at the first."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from src.datasets.files import Pair, Picture, read_image, read_mask, size_of
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


@dataclass
class Looked:
    """One pair: what could be read of it, and what is wrong with it.

    Attributes:
        pair: Its files.
        image: None if it cannot be read.
        stored: The mask as stored; None if it cannot be read.
        mask: uint8 [height, width], class ids; None if there is something wrong with the mask or its size.
        strange: Pixels of a colour of no class, taken as void.
        image_digest: Of the image's pixels; empty if it cannot be read.
        errors: One line each.
    """

    pair: Pair
    image: Picture | None = None
    stored: Picture | None = None
    mask: np.ndarray | None = None
    strange: int = 0
    image_digest: str = ""
    errors: list[str] = field(default_factory=list)


@dataclass
class SplitAudit:
    """What one split holds.

    Attributes:
        name: `train`, `val` or `test`.
        pairs: Its files.
        sizes: `height x width` to number of images.
        image_modes: Pillow's pixel format to number of images.
        mask_modes: Likewise of masks.
        id_pixels: int64 [256], pixels of each id.
        id_images: int64 [256], images that contain each id.
        id_image_pixels: int64 [256], pixels of the images that contain each id.
        masks: uint8 [height, width] each, of the pairs with nothing wrong, in their order.
        image_digests: Of every readable image, by its path.
    """

    name: str
    pairs: list[Pair]
    sizes: Counter[str] = field(default_factory=Counter)
    image_modes: Counter[str] = field(default_factory=Counter)
    mask_modes: Counter[str] = field(default_factory=Counter)
    id_pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    id_images: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    id_image_pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    masks: list[np.ndarray] = field(default_factory=list)
    image_digests: dict[str, str] = field(default_factory=dict)


def audit_split(source: Source, split: str, problems: Problems) -> SplitAudit:
    """Every file of the split, decoded; `problems` receives all that is wrong."""
    audit = SplitAudit(split, source.pairs(split, problems.errors.append))
    transparent = strange = 0
    for looked in in_threads(lambda pair: look_at(pair, source.labels), audit.pairs, f"looking at {split}"):
        problems.errors += looked.errors
        if looked.image is not None:
            height, width = looked.image.pixels.shape[:2]
            audit.sizes[f"{height}x{width}"] += 1
            audit.image_modes[looked.image.mode] += 1
            audit.image_digests[str(looked.pair.image)] = looked.image_digest
            transparent += bool(looked.image.transparent)
        if looked.stored is not None:
            audit.mask_modes[looked.stored.mode] += 1
        strange += bool(looked.strange)
        if looked.mask is not None:
            counts = np.bincount(looked.mask.ravel(), minlength=256)
            audit.id_pixels += counts
            audit.id_images += counts > 0
            audit.id_image_pixels += (counts > 0) * counts.sum()
            audit.masks.append(looked.mask)
    _note_oddities(audit, source.labels, problems, transparent, strange)
    return audit


def _note_oddities(audit: SplitAudit, labels: LabelSet, problems: Problems, transparent: int, strange: int) -> None:
    if transparent:
        problems.warnings.append(f"{audit.name}: {transparent} images are not opaque; what they are seen through is left out")
    if strange:
        problems.warnings.append(f"{audit.name}: {strange} masks have a few pixels of a colour of no class; they count as void")
    if len(audit.sizes) > 1:
        listed = ", ".join(f"{size} ({count})" for size, count in audit.sizes.most_common())
        problems.warnings.append(f"{audit.name}: images of several sizes: {listed}")
    absent = [label.name for number, label in enumerate(labels.classes) if audit.masks and not audit.id_pixels[number]]
    if absent:
        problems.warnings.append(f"{audit.name}: no pixel of {', '.join(absent)}")
    only_void = sum(bool((mask == labels.ignore_index).all()) for mask in audit.masks)
    if only_void:
        problems.warnings.append(f"{audit.name}: {only_void} masks are all void; nothing is learnt from them")


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
        looked.mask, looked.strange = labels.decode(looked.stored.pixels, pair.mask)
    except DataError as error:
        looked.errors.append(str(error))
    image, stored = looked.image, looked.stored
    if image is not None and stored is not None:
        if image.orientation != stored.orientation:
            looked.errors.append(
                f"{pair.image} has EXIF orientation {image.orientation}, its mask {pair.mask} {stored.orientation}; save both"
                " without the tag, the same way up"
            )
        elif image.pixels.shape[:2] != stored.pixels.shape[:2]:
            looked.errors.append(
                f"{pair.image} is {size_of(image)}, its mask {pair.mask} {size_of(stored)}; both must have one size"
            )
    if looked.errors:
        looked.mask = None
    return looked
