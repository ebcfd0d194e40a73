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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel, ValidationError

from src.datasets.files import Pair
from src.datasets.publishing import publishing
from src.datasets.samples import Facts, Samples
from src.datasets.threads import in_threads
from src.errors import UserError

LOGGER = logging.getLogger("src")
FORMAT = 2  # in the name of each file; goes up when its layout or anything that decides its pixels changes
PIXELS, HEADER = "pixels.bin", "header.json"
_WRITES = contextvars.ContextVar("_WRITES", default=True)


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


class Header(BaseModel):
    """What a file of pixels says of itself.

    Attributes:
        entry: Name of its folder: split, size, and a hash of all that decides the pixels.
        crc32: Of the pixels, then of `facts`.
        facts: A `Facts` in JSON.
    """

    entry: str
    crc32: int
    facts: str


def read_into_memory(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str) -> Samples:
    """All samples in this process's memory, for its loader workers too."""
    pixels = bytearray()
    facts = _decode_all(decode, pairs, title, pixels.extend)
    return Samples(facts, memoryview(pixels).toreadonly())


def read_facts(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str) -> Samples:
    """What is known of the samples, which are not kept."""
    return Samples(_decode_all(decode, pairs, title, lambda _: None))


def read_through_disk(decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str, folder: Path) -> Samples:
    """All samples in a file under `folder`, made if it is not there or damaged; not kept, saying so, if it cannot be made.

    The folder's name holds a hash of all that decides the pixels, so that it is never out of date. It appears whole or not at
    all, so that of two processes that make it at once both have a whole one.
    """
    if not _WRITES.get():
        with contextlib.suppress(OSError, ValueError):  # or not there yet
            return open_samples(folder, len(pairs))
        return read_facts(decode, pairs, title)
    try:
        if folder.is_dir():
            try:
                return open_samples(folder, len(pairs))
            except (OSError, ValueError) as error:
                LOGGER.warning("%s: damaged (%s); made again", folder, error)
                _remove(folder)
        with publishing(folder) as partial:
            with (partial / PIXELS).open("wb") as file:
                header = _write(file, folder.name, decode, pairs, title)
            (partial / HEADER).write_text(header.model_dump_json())
        return open_samples(folder, len(pairs))
    except UserError:  # an image is wrong, not the disk
        raise
    except (OSError, ValueError) as error:
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


def _write(file: BinaryIO, entry: str, decode: Callable[[Pair], Decoded], pairs: Sequence[Pair], title: str) -> Header:
    """Writes the pixels and gives the header."""
    checksum = 0

    def append(block: bytes) -> None:
        nonlocal checksum
        checksum = zlib.crc32(block, checksum)
        file.write(block)

    facts = _decode_all(decode, pairs, title, append).model_dump_json()
    file.flush()
    os.fsync(file.fileno())
    return Header(entry=entry, crc32=zlib.crc32(facts.encode(), checksum), facts=facts)


def open_samples(folder: Path, count: int) -> Samples:
    """What was written, checked; raises ValueError or OSError if it is not whole, or not the entry of this name and count."""
    try:
        header = Header.model_validate_json((folder / HEADER).read_bytes())
        facts = Facts.model_validate_json(header.facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(" ".join([HEADER, *map(str, first["loc"]), first["msg"]])) from error
    if (header.entry, len(facts.shapes)) != (folder.name, count):
        raise ValueError(f"it holds {len(facts.shapes)} samples of {header.entry}")
    samples = Samples(facts, file=folder / PIXELS)
    if (size := (folder / PIXELS).stat().st_size) != samples.num_bytes:
        raise ValueError(f"it has {size} bytes instead of {samples.num_bytes}")
    checksum = 0
    for index in range(count):
        checksum = zlib.crc32(samples.flat(index).data, checksum)
    if zlib.crc32(header.facts.encode(), checksum) != header.crc32:
        raise ValueError("its checksum is another")
    return samples


def _remove(folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.damaged_{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        folder.rename(aside)  # in one step; who reads it goes on reading what was there
    for left_over in folder.parent.glob(".*.damaged_*"):  # of killed processes too
        shutil.rmtree(left_over, ignore_errors=True)


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
            files, total, first = facts.notes.get(note, (0, 0, example.encode(errors="replace").decode()))
            facts.notes[note] = (files + 1, total + pixels, first)
    facts.class_pixels, facts.class_image_pixels = totals.tolist()
    facts.fingerprint = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    return facts


def store_key(pairs: Sequence[Pair], *facts: object) -> str:
    """Hash of the files (path, size, time of change), of `facts` and of what decodes them."""
    files = [(str(path.absolute()), stat.st_size, stat.st_mtime_ns) for pair in pairs for path in pair for stat in [path.stat()]]
    programs = [version(name) for name in ("pillow", "opencv-python-headless", "numpy")]
    text = json.dumps([FORMAT, files, programs, *facts], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
