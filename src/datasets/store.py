"""Decoded samples of a split: in memory, or in a file on disk that processes share."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import json
import logging
import os
import shutil
import zlib
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
from src.errors import UserError

LOGGER = logging.getLogger("src")
FORMAT = 1  # in the name of each file; goes up when its layout or anything that decides its pixels changes
CHANNELS = 4  # red, green, blue, class id: an image's bytes are followed by its mask's
PIXELS, HEADER = "pixels.bin", "header.json"
_WRITES = contextvars.ContextVar("_WRITES", default=True)
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what opening a file of another content ends in


@dataclass
class Decoded:
    """One sample, brought to its size, and what is known of it from before that.

    Attributes:
        image: uint8 [height, width, 3].
        mask: uint8 [height, width], class ids.
        id_pixels: int64 [256], how many pixels of the mask as stored have each id.
        image_digest: Of the image's pixels as stored.
        digest: Of name, image and mask.
        notes: What a person should know, such as `transparent pixels`, on how many pixels, and an example.
    """

    image: np.ndarray
    mask: np.ndarray
    id_pixels: np.ndarray
    image_digest: str
    digest: str
    notes: dict[str, tuple[int, str]]


@dataclass
class Facts:
    """What is known of a split once it was decoded whole.

    Attributes:
        shapes: [height, width] of each sample.
        class_pixels: How many pixels of the split have each id, as stored; 256 numbers.
        class_image_pixels: How many pixels the images that contain an id have; 256 numbers.
        image_digests: Of each image's pixels as stored.
        fingerprint: Short hash of the names and pixels of all files, before any resizing.
        notes: What a person should know, in how many files and pixels, and the first example.
    """

    shapes: list[tuple[int, int]] = field(default_factory=list)
    class_pixels: list[int] = field(default_factory=list)
    class_image_pixels: list[int] = field(default_factory=list)
    image_digests: list[str] = field(default_factory=list)
    fingerprint: str = ""
    notes: dict[str, list[Any]] = field(default_factory=dict)


class Samples:
    """Samples in one flat array of bytes; what is read from it must not be written to.

    Args:
        pixels: uint8, one sample after another; None: only the facts are kept.
        facts: Their shapes and more.
        file: Where `pixels` is mapped from; None: it is in memory.
    """

    def __init__(self, pixels: np.ndarray | None, facts: Facts, file: Path | None = None) -> None:
        self.pixels = np.empty(0, np.uint8) if pixels is None else pixels.view()
        self.pixels.flags.writeable = False
        self.are_kept = pixels is not None
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
    facts = _decode_all(decode, pairs, title, pixels.extend)
    return Samples(np.frombuffer(pixels, np.uint8), facts)


def read_facts(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str) -> Samples:
    """What is known of the samples, which are not kept."""
    return Samples(None, _decode_all(decode, pairs, title, lambda _: None))


def read_through_disk(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str, folder: Path) -> Samples:
    """All samples in a file under `folder`, made if it is not there or damaged; not kept, saying so, if it cannot be made.

    The folder's name holds a hash of all that decides the pixels, so that it is never out of date. It appears whole or not at
    all, so that of two processes that make it at once both have a whole one.
    """
    if not _WRITES.get():
        with contextlib.suppress(*DAMAGED):  # or not there yet
            return open_samples(folder)
        return read_facts(decode, pairs, title)
    try:
        if folder.is_dir():
            try:
                return open_samples(folder)
            except DAMAGED as error:
                LOGGER.warning("%s: damaged (%s); made again", folder, error)
                _remove(folder)
        with publishing(folder) as partial:
            with (partial / PIXELS).open("wb") as file:
                header = _write(file, decode, pairs, title)
            (partial / HEADER).write_text(json.dumps(header))
        return open_samples(folder)
    except UserError:  # an image is wrong, not the disk
        raise
    except DAMAGED as error:
        LOGGER.warning("%s: cannot be made (%s); each image is decoded each time instead", folder, error)
        return read_facts(decode, pairs, title)


@contextlib.contextmanager
def leaving_no_trace() -> Iterator[None]:
    """Within, nothing is written: samples that are not on the disk yet are decoded for the facts about them, and not kept."""
    token = _WRITES.set(False)
    try:
        yield
    finally:
        _WRITES.reset(token)


def _write(file: BinaryIO, decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str) -> dict[str, Any]:
    """Writes the pixels and gives the header."""
    checksum = 0

    def append(block: bytes) -> None:
        nonlocal checksum
        checksum = zlib.crc32(block, checksum)
        file.write(block)

    facts = json.dumps(asdict(_decode_all(decode, pairs, title, append)))
    file.flush()
    os.fsync(file.fileno())
    return {"crc32": zlib.crc32(facts.encode(), checksum), "facts": facts}


def open_samples(folder: Path) -> Samples:
    """What was written, mapped and checked; raises ValueError, KeyError, TypeError or OSError if it is not whole."""
    header = json.loads((folder / HEADER).read_text())
    pixels = np.memmap(folder / PIXELS, np.uint8, mode="r")
    if zlib.crc32(header["facts"].encode(), zlib.crc32(pixels.data)) != header["crc32"]:
        raise ValueError("its checksum is another")
    facts = json.loads(header["facts"])
    shapes = [(height, width) for height, width in facts["shapes"]]  # JSON has no tuples
    return Samples(pixels, Facts(**facts | {"shapes": shapes}), folder / PIXELS)


def _remove(folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.damaged_{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        folder.rename(aside)  # in one step; who reads it goes on reading what was there
    shutil.rmtree(aside, ignore_errors=True)


def _decode_all(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str, append: Callable[[bytes], object]) -> Facts:
    """Decodes in several threads and hands the bytes over in the order of the pairs."""
    facts, digests = Facts(), []
    totals = np.zeros((2, 256), np.int64)
    for decoded in in_threads(decode, pairs, title):
        append(decoded.image.tobytes())
        append(decoded.mask.tobytes())
        height, width = decoded.mask.shape
        facts.shapes.append((height, width))
        totals += np.stack([decoded.id_pixels, (decoded.id_pixels > 0) * decoded.id_pixels.sum()])
        facts.image_digests.append(decoded.image_digest)
        digests.append(decoded.digest)
        for note, (pixels, example) in decoded.notes.items():
            noted = facts.notes.setdefault(note, [0, 0, example])
            noted[0], noted[1] = noted[0] + 1, noted[1] + pixels
    facts.class_pixels, facts.class_image_pixels = totals.tolist()
    facts.fingerprint = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    return facts


def store_key(pairs: Sequence[Pair], *facts: object) -> str:
    """Hash of the files (path, size, time of change), of `facts` and of what decodes them."""
    files = [(str(path.absolute()), stat.st_size, stat.st_mtime_ns) for pair in pairs for path in pair for stat in [path.stat()]]
    programs = [version(name) for name in ("pillow", "opencv-python-headless", "numpy")]
    text = json.dumps([FORMAT, files, programs, *facts], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
