"""Decoded samples of a split: in memory, or in a file on disk that processes share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from src.datasets.augmentation import Sample
from src.datasets.files import Pair
from src.datasets.publishing import publishing
from src.datasets.threads import in_threads

LOGGER = logging.getLogger("src")
FORMAT = 1  # goes up when the file's layout or anything that decides its pixels changes
CHANNELS = 4  # red, green, blue, class id: an image's bytes are followed by its mask's
PIXELS, HEADER = "pixels.bin", "header.json"


@dataclass
class Decoded:
    """One sample, brought to its size, and what is known of it from before that.

    Attributes:
        image: uint8 [height, width, 3].
        mask: uint8 [height, width], class ids.
        id_pixels: int64 [256], how many pixels of the mask as stored have each id.
        image_digest: Of the image's pixels as stored.
        digest: Of name, image and mask.
        notes: What a person should know, such as `transparent pixels`, and on how many pixels.
    """

    image: np.ndarray
    mask: np.ndarray
    id_pixels: np.ndarray
    image_digest: str
    digest: str
    notes: dict[str, int]


@dataclass
class Facts:
    """What is known of a split once it was decoded whole.

    Attributes:
        shapes: [height, width] of each sample.
        class_pixels: How many pixels of the split have each id, as stored; 256 numbers.
        class_image_pixels: How many pixels the images that contain an id have; 256 numbers.
        class_images: How many images contain each id; 256 numbers.
        image_digests: Of each image's pixels as stored.
        fingerprint: Short hash of the names and pixels of all files, before any resizing.
        notes: What a person should know, and in how many files and pixels.
    """

    shapes: list[tuple[int, int]] = field(default_factory=list)
    class_pixels: list[int] = field(default_factory=list)
    class_image_pixels: list[int] = field(default_factory=list)
    class_images: list[int] = field(default_factory=list)
    image_digests: list[str] = field(default_factory=list)
    fingerprint: str = ""
    notes: dict[str, list[int]] = field(default_factory=dict)


class Samples:
    """Samples in one flat array of bytes; what is read from it must not be written to.

    Args:
        pixels: uint8, one sample after another.
        facts: Their shapes and more.
        file: Where `pixels` is mapped from; None: it is in memory.
    """

    def __init__(self, pixels: np.ndarray, facts: Facts, file: Path | None = None) -> None:
        self.pixels = pixels.view()
        self.pixels.flags.writeable = False
        self.facts = facts
        self.file = file
        sizes = [height * width * CHANNELS for height, width in facts.shapes]
        self.offsets = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return len(self.facts.shapes)

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [height, width, 3] and mask uint8 [height, width]."""
        height, width = self.facts.shapes[index]
        start = self.offsets[index]
        middle = start + height * width * 3
        image = self.pixels[start:middle].reshape(height, width, 3)
        return image, self.pixels[middle : middle + height * width].reshape(height, width)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        """Without the pixels of a file: a process that gets this opens the file itself."""
        return vars(self) | ({"pixels": None} if self.file else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.file:
            self.pixels = np.memmap(self.file, np.uint8, mode="r")


def read_into_memory(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str) -> Samples:
    """All samples in this process's memory, for its loader workers too."""
    pixels = bytearray()
    facts = _decode_all(decode, pairs, title, lambda block: pixels.extend(block))
    return Samples(np.frombuffer(pixels, np.uint8), facts)


def read_through_disk(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str, folder: Path) -> Samples:
    """All samples in a file under `folder`, made if it is not there or damaged; in memory, saying so, if it cannot be made.

    The folder's name holds a hash of all that decides the pixels, so that it is never out of date. It appears whole or not at
    all, so that of two processes that make it at once both have a whole one.
    """
    if folder.is_dir():
        try:
            return open_samples(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOGGER.warning("%s: damaged (%s); made again", folder, error)
            _remove(folder)
    try:
        with publishing(folder) as partial:
            with (partial / PIXELS).open("wb") as file:
                facts = _write(file, decode, pairs, title)
            (partial / HEADER).write_text(json.dumps(facts))
        return open_samples(folder)
    except OSError as error:
        LOGGER.warning("%s: cannot be made (%s); the images are kept in memory instead", folder, error.strerror or error)
        return read_into_memory(decode, pairs, title)


def _write(file: BinaryIO, decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str) -> dict[str, Any]:
    checksum = 0

    def append(block: bytes) -> None:
        nonlocal checksum
        checksum = zlib.crc32(block, checksum)
        file.write(block)

    facts = _decode_all(decode, pairs, title, append)
    file.flush()
    os.fsync(file.fileno())
    return {"format": FORMAT, "crc32": checksum, "facts": asdict(facts)}


def open_samples(folder: Path) -> Samples:
    """What was written, mapped and checked; raises ValueError, KeyError, TypeError or OSError if it is not whole."""
    header = json.loads((folder / HEADER).read_text())
    shapes = [(height, width) for height, width in header["facts"]["shapes"]]  # JSON has no tuples
    facts = Facts(**header["facts"] | {"shapes": shapes})
    samples = Samples(np.memmap(folder / PIXELS, np.uint8, mode="r"), facts, folder / PIXELS)
    if header["format"] != FORMAT or samples.offsets[-1] != len(samples.pixels):
        raise ValueError(f"{len(samples.pixels)} bytes instead of {samples.offsets[-1]}")
    if zlib.crc32(samples.pixels.data) != header["crc32"]:
        raise ValueError("its checksum is another")
    return samples


def _remove(folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.damaged_{os.getpid()}")
    folder.rename(aside)  # in one step; who reads it goes on reading what was there
    shutil.rmtree(aside, ignore_errors=True)


def _decode_all(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str, append: Callable[[bytes], object]) -> Facts:
    """Decodes in several threads and hands the bytes over in the order of the pairs."""
    facts, digests, notes = Facts(), [], Counter[str]()
    files_noted = Counter[str]()
    totals = np.zeros((3, 256), np.int64)
    for decoded in in_threads(decode, pairs, title):
        append(decoded.image.tobytes())
        append(decoded.mask.tobytes())
        height, width = decoded.mask.shape
        facts.shapes.append((height, width))
        there = decoded.id_pixels > 0
        totals += np.stack([decoded.id_pixels, there * decoded.id_pixels.sum(), there])
        facts.image_digests.append(decoded.image_digest)
        digests.append(decoded.digest)
        notes.update(decoded.notes)
        files_noted.update(decoded.notes.keys())
    facts.class_pixels, facts.class_image_pixels, facts.class_images = totals.tolist()
    facts.fingerprint = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    facts.notes = {note: [files_noted[note], pixels] for note, pixels in notes.items()}
    return facts


def store_key(pairs: Sequence[Pair], *facts: object) -> str:
    """Hash of the files (path, size, time of change), of `facts` and of what decodes them."""
    files = [(str(path.absolute()), stat.st_size, stat.st_mtime_ns) for pair in pairs for path in pair for stat in [path.stat()]]
    programs = [version(name) for name in ("pillow", "opencv-python-headless", "numpy")]
    text = json.dumps([FORMAT, files, programs, *facts], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
