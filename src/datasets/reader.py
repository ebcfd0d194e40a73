"""The reader that every data set of this tree shares: files of one split, as samples."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.datasets.augmentation import RESIZE_RULES, Augmentation, MaskResize, Sample, resize
from src.datasets.device_samples import DeviceSamples, Key
from src.datasets.files import Pair, Report, read_mask, read_pair, refuse
from src.datasets.frame_names import frame_of
from src.datasets.labels import LabelSet
from src.datasets.samples import Samples
from src.datasets.store import Decoded, read_facts, read_into_memory, read_through_disk, store_key
from src.errors import ConfigError, DataError

Cache = Literal["auto", "disk", "memory", "device", "none"]
CACHE_HOME = Path("data/cache")


class Source(NamedTuple):
    """Where a data set's files are, and what their masks mean.

    Attributes:
        root: The folder that they lie in.
        layout: How they lie, in a word.
        splits: Those that it has.
        pairs: The files of a split; tells a `Report` what is wrong.
        labels: What the values in the masks mean.
    """

    root: Path
    layout: str
    splits: Sequence[str]
    pairs: Callable[[str, Report], list[Pair]]
    labels: LabelSet


class SegmentationDataset(Dataset[Sample]):
    """One split: images with the mask that labels them.

    Args:
        source: Its files.
        split: `train`, `val` or `test`.
        image_size: [height, width] that images and masks are resized to; null keeps their own.
        cache: Where decoded samples are kept: `disk` (a file under data/cache that processes share), `memory`, `device` (with
            the network), `none` (decoded each time); `auto`: device on a GPU with room for them, else disk.
        augmentation: Random transforms, for training only.
        seed: Of the augmentation.
        mask_resize: How masks are resized, see `resize_mask`: `center`, or `floor` as the original script does.

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
        source: Source,
        split: str,
        image_size: Sequence[int] | None,
        cache: Cache,
        augmentation: Augmentation | None,
        seed: int,
        mask_resize: MaskResize = "center",
    ) -> None:
        if split not in source.splits:
            raise DataError(f"{source.root}: no {split} split here; the {source.layout} layout has {', '.join(source.splits)}")
        self.pairs = source.pairs(split, refuse)
        self.labels = source.labels
        self.split = split
        self.image_size = check_image_size(image_size)
        self.cache = cache
        self.augmentation = augmentation
        self.seed = seed
        self.mask_resize: MaskResize = mask_resize
        self.on_device: DeviceSamples | None = None
        self.samples = self._read_samples()
        facts = self.samples.facts
        self.class_pixels = np.array(facts.class_pixels, np.int64)
        self.class_image_pixels = np.array(facts.class_image_pixels, np.int64)
        self._check_one_size()
        self.labels.check_split(self.class_pixels, split, source.root)
        if augmentation is not None:
            shapes = facts.shapes  # the lowest and the narrowest image most easily do not fit a crop
            smallest = sorted({shapes.index(min(shapes)), shapes.index(min(shapes, key=lambda shape: shape[1]))})
            augmentation.fit_to(self.ignore_index, self.image_size, [self.plain(index) for index in smallest])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> Sample:
        """Image uint8 [height, width, 3] and mask uint8 [height, width] of (epoch, index), or of an index alone."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, mask = self.plain(index)
        if self.augmentation is None:
            return image, mask
        return self.augmentation(image, mask, (self.seed, epoch, index))

    def plain(self, index: int) -> Sample:
        """The sample without augmentation; not to be written to."""
        if self.samples.are_kept:
            return self.samples[index]
        image, stored = read_pair(self.pairs[index])
        mask, _ = self.labels.decode(stored.pixels, self.pairs[index].mask)
        return resize(image.pixels, mask, self._kept_size, self.mask_resize)

    def batch(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """A batch of samples: uint8 tensors [batch, height, width, 3] and [batch, height, width]."""
        if self.on_device is not None:
            return self.on_device.batch(keys, self.augmentation, self.seed)
        first_image, first_mask = self[keys[0]]
        images = np.empty((len(keys), *first_image.shape), np.uint8)
        masks = np.empty((len(keys), *first_mask.shape), np.uint8)
        images[0], masks[0] = first_image, first_mask
        for place, key in enumerate(keys[1:], start=1):
            images[place], masks[place] = self[key]
        return torch.from_numpy(images), torch.from_numpy(masks)

    @property
    def num_classes(self) -> int:
        """Channels of the logits."""
        return self.labels.num_classes

    @property
    def ignore_index(self) -> int:
        """Mask id that counts neither in the loss nor in a score."""
        return self.labels.ignore_index

    @property
    def classes(self) -> tuple[Any, ...]:
        """The scored classes."""
        return self.labels.classes

    @property
    def fingerprint(self) -> str:
        """Short hash of the names and the decoded pixels of all files, before any resizing."""
        return self.samples.facts.fingerprint

    @property
    def notes(self) -> list[str]:
        """What a person should know of the files: a line for each kind of oddity."""
        noted = self.samples.facts.notes.items()
        return [f"{files} files have {note} ({pixels} pixels), such as {example}" for note, (files, pixels, example) in noted]

    @property
    def protocol(self) -> dict[str, Any]:
        """What a score must share with another to be ranked with it."""
        return {
            "split": self.split,
            "labels": [label.name for label in self.classes],
            "void": "left out",
            "scored_size": list(self.image_size) if self.image_size else "native",
            "resize": RESIZE_RULES[self.mask_resize if self.image_size else "center"],
        }

    @property
    def names(self) -> list[str]:
        """Of the images, without folder and ending."""
        return [pair.image.stem for pair in self.pairs]

    @property
    def sequences(self) -> list[str]:
        """The video that each image is a frame of; by default its name before the frame number."""
        return [frame_of(name).sequence for name in self.names]

    def native_mask(self, index: int) -> np.ndarray:
        """The mask at the size that it has on disk, uint8 [height, width]."""
        file = self.pairs[index].mask
        return self.labels.decode(read_mask(file).pixels, file)[0]

    def place_on(self, device: torch.device) -> None:
        """Keeps the samples on this device and makes batches there.

        Raises:
            ConfigError: If their sizes differ or the augmentation can only be done on the CPU.
        """
        self.on_device = DeviceSamples(self.samples, device, self.augmentation)

    def _read_samples(self) -> Samples:
        title = f"reading {self.split}"
        if self.cache == "none":
            return read_facts(self._read, self.pairs, title)
        if self.cache == "memory":
            return read_into_memory(self._read, self.pairs, title)
        size = self._kept_size
        rule = [self.mask_resize] if size and self.mask_resize != "center" else []
        key = store_key(self.pairs, size, sorted(self.labels.index_ids.items()), sorted(self.labels.color_ids.items()), *rule)
        shown_size = f"{size[0]}x{size[1]}" if size else "native"
        samples = read_through_disk(self._read, self.pairs, title, CACHE_HOME / f"{self.split}_{shown_size}_{key}")
        if self.cache == "device" and not samples.are_kept:
            return read_into_memory(self._read, self.pairs, title)
        return samples

    @property
    def _kept_size(self) -> tuple[int, int] | None:
        """The size of samples before what is random; None: their own."""
        return None if self.augmentation is not None and self.augmentation.from_native else self.image_size

    def _read(self, pair: Pair) -> Decoded:
        image, stored = read_pair(pair)
        mask, strange = self.labels.decode(stored.pixels, pair.mask)
        image_digest = hashlib.sha256(image.pixels.tobytes()).hexdigest()
        name = os.fsencode(pair.image.stem) + image_digest.encode()
        digest = hashlib.sha256(name + mask.tobytes()).hexdigest()
        counts = np.bincount(mask.ravel(), minlength=256)
        notes = {}
        if image.transparent:
            notes["transparent pixels, shown opaque"] = (image.transparent, str(pair.image))
        if strange:
            notes["colours of no class, taken as void"] = (sum(strange.values()), f"{next(iter(strange))} in {pair.mask}")
        return Decoded(*resize(image.pixels, mask, self._kept_size, self.mask_resize), counts, image_digest, digest, notes)

    def _check_one_size(self) -> None:
        shapes = self.samples.facts.shapes
        for pair, shape in zip(self.pairs, shapes, strict=True):
            if self.image_size is None and shape != shapes[0]:
                raise DataError(
                    f"{pair.image} is {shape[0]}x{shape[1]}, {self.pairs[0].image} {shapes[0][0]}x{shapes[0][1]};"
                    " set dataset.image_size=[height,width]"
                )


def check_image_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """`dataset.image_size` as [height, width]; raises ConfigError if it is neither that nor null."""
    if size is None:
        return None
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ConfigError(f"dataset.image_size={list(size)}; allowed are [height,width] in pixels, or null")
    return size[0], size[1]
