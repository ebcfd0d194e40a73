"""CamVid (Brostow et al. 2008), and the reader that every data set of this tree shares."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from src.datasets.augmentation import Augmentation, Sample, resize
from src.datasets.files import Pair, pair_files, read_pair
from src.datasets.label_tables import CAMVID11, UNUSED, VOID, LabelClass, distinct_color
from src.datasets.layouts import split_folders
from src.errors import ConfigError, DataError

Labels = Literal["camvid11", "index"]
READ_THREADS = 4


class CamVid(Dataset[Sample]):
    """One split of CamVid, decoded once and kept in memory as uint8.

    Args:
        root: Folder in a known layout (`src/datasets/layouts.py`).
        split: `train`, `val` or `test`.
        labels: `camvid11`: ids 0..10 are the classes and 11 is void; `index`: ids as stored, all below `num_classes`.
        num_classes: Channels of the logits; null: 11 for camvid11. `index` needs a number.
        class_names: Names of ids 0, 1, ..., which are scored; null: CamVid's. For `index` alone.
        ignore_index: Mask id that counts neither in the loss nor in a score; null: 11 for camvid11, else 255.
        image_size: [height, width] that images and masks are resized to; null keeps their own.
        augmentation: Random transforms, for training only.
        seed: Of the augmentation.

    Attributes:
        classes: Names and colours of the classes that are scored; class i has id i.
        class_pixels: int64 [256], how many pixels of the split have each id, as stored.
        class_image_pixels: int64 [256], how many pixels the images that contain an id have.

    Raises:
        DataError: If a file is missing, unreadable, or holds an id that is no class; the message names it.
        ConfigError: If the arguments do not fit each other.
    """

    mean = (0.485, 0.456, 0.406)  # of ImageNet, which the original script normalised with
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        split: str,
        labels: Labels = "camvid11",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
        image_size: Sequence[int] | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.split = split
        self.num_classes, self.ignore_index, self.allowed_ids = _label_facts(labels, num_classes, ignore_index)
        self.classes = _scored_classes(labels, class_names, self.num_classes)
        self.image_size = _check_size(image_size)
        self.augmentation = augmentation
        self.seed = seed
        self.pairs = pair_files(*split_folders(Path(root), split))
        self.class_pixels = np.zeros(256, np.int64)
        self.class_image_pixels = np.zeros(256, np.int64)
        self._digests: list[str] = []
        self.samples = self._read_samples()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Image uint8 [height, width, 3] and mask uint8 [height, width] of (epoch, index), or of an index alone."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, mask = self.samples[index]
        if self.augmentation is None:
            return image, mask
        image, mask = self.augmentation(image, mask, (self.seed, epoch, index))
        if self.image_size is not None and mask.shape != self.image_size:
            raise ConfigError(
                f"augmentation gave {mask.shape[0]}x{mask.shape[1]} where dataset.image_size is"
                f" {self.image_size[0]}x{self.image_size[1]}; end its transforms at that size"
            )
        return image, mask

    @property
    def fingerprint(self) -> str:
        """Short hash of the names and the decoded pixels of all files, before any resizing."""
        return hashlib.sha256("".join(self._digests).encode()).hexdigest()[:16]

    @property
    def protocol(self) -> dict[str, Any]:
        """What a score must share with another to be ranked with it."""
        return {
            "split": self.split,
            "classes": [label.name for label in self.classes],
            "void": "left out",
            "scored_at": self.image_size or "native size",
            "resize": "image bilinear, mask nearest at pixel centres",
        }

    def _read_samples(self) -> list[Sample]:
        with ThreadPoolExecutor(READ_THREADS) as threads:
            read = list(threads.map(self._read, self.pairs))
        for _, counts, digest in read:
            self.class_pixels += counts
            self.class_image_pixels += (counts > 0) * counts.sum()
            self._digests.append(digest)
        samples = [sample for sample, _, _ in read]
        self._check_one_size(samples)
        return samples

    def _read(self, pair: Pair) -> tuple[Sample, np.ndarray, str]:
        image, mask = read_pair(pair)
        counts = np.bincount(mask.ravel(), minlength=256)
        self._check_ids(pair, counts)
        digest = hashlib.sha256(pair.image.stem.encode() + image.tobytes() + mask.tobytes()).hexdigest()
        if self.augmentation is None or not self.augmentation.from_native:
            image, mask = resize(image, mask, self.image_size)
        return (image, mask), counts, digest

    def _check_ids(self, pair: Pair, counts: np.ndarray) -> None:
        for value in np.flatnonzero(counts):
            if value not in self.allowed_ids:
                raise DataError(
                    f"{pair.mask}: value {value} ({counts[value]} pixels) is no class; allowed are 0 to"
                    f" {max(self.allowed_ids - {self.ignore_index})} and {self.ignore_index} (ignored);"
                    " see dataset.labels, dataset.num_classes and dataset.ignore_index"
                )

    def _check_one_size(self, samples: list[Sample]) -> None:
        for pair, (_, mask) in zip(self.pairs, samples, strict=True):
            if self.image_size is None and mask.shape != samples[0][1].shape:
                raise DataError(
                    f"{pair.image} is {mask.shape[0]}x{mask.shape[1]}, {self.pairs[0].image}"
                    f" {samples[0][1].shape[0]}x{samples[0][1].shape[1]}; set dataset.image_size=[height,width]"
                )


def _label_facts(labels: Labels, num_classes: int | None, ignore_index: int | None) -> tuple[int, int, frozenset[int]]:
    """Number of classes, ignored id, and the ids that masks may hold."""
    if labels == "camvid11":
        num_classes = len(CAMVID11) if num_classes is None else num_classes
        ignore_index = VOID if ignore_index is None else ignore_index
        ids = range(len(CAMVID11))
        if num_classes < len(CAMVID11):
            raise ConfigError(f"dataset.num_classes={num_classes}; labels=camvid11 need at least {len(CAMVID11)}")
    elif num_classes is None:
        raise ConfigError("dataset.labels=index needs dataset.num_classes=N (the stored ids are 0 to N-1)")
    elif not 2 <= num_classes <= UNUSED:
        raise ConfigError(f"dataset.num_classes={num_classes}; allowed are 2 to {UNUSED}")
    else:
        ignore_index = UNUSED if ignore_index is None else ignore_index
        ids = range(num_classes)
    if ignore_index in ids or not 0 <= ignore_index <= UNUSED:
        raise ConfigError(f"dataset.ignore_index={ignore_index}; allowed are ids that are no class, up to {UNUSED}")
    return num_classes, ignore_index, frozenset(ids) | {ignore_index}


def _scored_classes(labels: Labels, names: Sequence[str] | None, num_classes: int) -> tuple[LabelClass, ...]:
    if names is None:
        return CAMVID11[:num_classes]
    if labels != "index" or not 1 <= len(names) <= num_classes or len(set(names)) < len(names):
        raise ConfigError(
            f"dataset.class_names={list(names)}; allowed are different names of the first ids, {num_classes} at most,"
            " with dataset.labels=index"
        )
    return tuple(LabelClass(name, distinct_color(number)) for number, name in enumerate(names))


def _check_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ConfigError(f"dataset.image_size={list(size)}; allowed are [height,width] in pixels, or null")
    return size[0], size[1]
