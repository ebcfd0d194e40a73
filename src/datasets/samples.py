"""Decoded samples of a split, in memory or in a file, and what is known of them."""

import os
import weakref
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, NonNegativeInt, PositiveInt

from src.datasets.augmentation import Sample
from src.errors import DataError

CHANNELS = 4  # red, green, blue, class id: an image's bytes are followed by its mask's


class Facts(BaseModel):
    """What is known of a split once it was decoded whole.

    Attributes:
        shapes: [height, width] of each sample.
        class_pixels: How many pixels of the split have each id, as stored; 256 numbers.
        class_image_pixels: How many pixels the images that contain an id have; 256 numbers.
        image_digests: Of each image's pixels as stored.
        fingerprint: Short hash of the names and pixels of all files, before any resizing.
        notes: What a person should know, in how many files and pixels, and the first example.
    """

    shapes: list[tuple[PositiveInt, PositiveInt]] = []
    class_pixels: list[NonNegativeInt] = []
    class_image_pixels: list[NonNegativeInt] = []
    image_digests: list[str] = []
    fingerprint: str = ""
    notes: dict[str, tuple[int, int, str]] = {}


class Samples:
    """Samples one after another, in memory or in a file; what is read from there must not be written to.

    The file is read, not mapped: one that is cut short, or a disk that fails, would end a process that had mapped it.

    Args:
        facts: Their shapes and more.
        pixels: Their bytes, in memory.
        file: What holds them instead; neither: only the facts are kept.
    """

    def __init__(self, facts: Facts, pixels: memoryview | bytes | None = None, file: Path | None = None) -> None:
        self.facts = facts
        self.pixels = pixels
        self.file = file
        self.are_kept = pixels is not None or file is not None
        self.offsets = list(accumulate((height * width * CHANNELS for height, width in facts.shapes), initial=0))
        self.num_bytes = self.offsets[-1]
        if file:
            self._descriptor = os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return len(self.facts.shapes)

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [height, width, 3] and mask uint8 [height, width]; raises DataError as `flat`."""
        height, width = self.facts.shapes[index]
        image, mask = np.split(self.flat(index), [height * width * 3])
        return image.reshape(height, width, 3), mask.reshape(height, width)

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that gets this opens the file itself."""
        return Samples, (self.facts, self.pixels and bytes(self.pixels), self.file)

    def flat(self, index: int) -> np.ndarray:
        """A sample's bytes, uint8 [height * width * CHANNELS].

        Raises:
            DataError: If the file cannot be read, or no longer reaches so far.
        """
        start, end = self.offsets[index : index + 2]
        if self.pixels is not None:
            return np.frombuffer(self.pixels[start:end], np.uint8)
        try:
            content = os.pread(self._descriptor, end - start, start)
            if len(content) < end - start:
                raise EOFError("it was cut short")
        except (OSError, EOFError) as error:
            raise DataError(f"{self.file}: cannot be read ({error}); start again, which makes it anew") from error
        return np.frombuffer(content, np.uint8)
