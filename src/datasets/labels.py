"""What mask values mean: how a stored index or colour becomes a class id."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.datasets.label_tables import Color, LabelClass
from src.errors import DataError

UNKNOWN_SHARE = 0.001  # of an image's pixels may have colours of no class (anti-aliased edges): they are void. More is an error
NO_CLASS = -1
DESCRIBE = "in a YAML file of src.datasets.folder.Folder (docs/extending.md, Add a data set)"
MAX_NAMED = 4  # values or colours that an error lists


@dataclass(frozen=True)
class LabelSet:
    """The ids of a data set.

    Attributes:
        classes: Names and colours of the classes that are scored; class i has id i.
        num_classes: Channels of the logits, at least as many as there are scored classes.
        ignore_index: Id of pixels that count neither in the loss nor in a score.
        index_ids: Stored value of an index mask to id; other values are refused.
        color_ids: Stored colour of a colour mask to id; other colours are void below a tolerance, else refused.
        hint: What errors advise.
    """

    classes: tuple[LabelClass, ...]
    num_classes: int
    ignore_index: int
    index_ids: Mapping[int, int] = field(default_factory=dict)
    color_ids: Mapping[Color, int] = field(default_factory=dict)
    hint: str = ""

    def decode(self, stored: np.ndarray, file: Path) -> tuple[np.ndarray, dict[Color, int]]:
        """Class ids uint8 [height, width] of a mask as stored, and the colours of no class that it had, with their pixels.

        Args:
            stored: Integers [height, width], or colours uint8 [height, width, 3].
            file: What errors name.

        Raises:
            DataError: If a value is no class, or too many pixels have a colour of none.
        """
        return self._decode_colors(stored, file) if stored.ndim == 3 else (self._decode_index(stored, file), {})

    def check_split(self, id_pixels: np.ndarray, name: str, root: Path) -> None:
        """Raises DataError for a split that nothing can be learnt from, or scored on.

        Args:
            id_pixels: How many of its pixels have each id; 256 numbers.
            name: The split's.
            root: Where it lies.
        """
        if not id_pixels[: len(self.classes)].any():
            raise DataError(f"{root}: no mask of {name} has a pixel that counts; {self.hint}")
        if name == "train" and self.ignore_index == 255 and np.flatnonzero(id_pixels).tolist() == [0, 255]:
            raise DataError(
                f"{root}: the masks of {name} show {self.classes[0].name} and void (255) alone. If 255 is a class, name it,"
                f" classes: {{background: 0, object: 255}}, {DESCRIBE}"
            )

    def _decode_index(self, stored: np.ndarray, file: Path) -> np.ndarray:
        if not self.index_ids:
            raise DataError(f"{file}: an index mask, where colours are asked for; {self.hint}")
        last = len(self._index_table) - 1
        ids = self._index_table[stored if stored.max() <= last else np.minimum(stored.astype(np.int64), last)]
        if (ids == NO_CLASS).any():
            raise DataError(self._wrong_values(stored[ids == NO_CLASS], set(np.unique(stored).tolist()), file))
        return ids.astype(np.uint8)

    def _wrong_values(self, wrong: np.ndarray, there: set[int], file: Path) -> str:
        values, counts = np.unique(wrong, return_counts=True)
        listed = ", ".join(f"value {v} ({n} pixels)" for v, n in list(zip(values, counts, strict=True))[:MAX_NAMED])
        line = f"{file}: {listed} is no class; allowed are {self._allowed}"
        if there <= {0, 255}:
            return f"{line}. The mask is binary: name its values, classes: {{background: 0, object: 255}}, {DESCRIBE}"
        return f"{line}; {self.hint}"

    def _decode_colors(self, stored: np.ndarray, file: Path) -> tuple[np.ndarray, dict[Color, int]]:
        if not self.color_ids:
            raise DataError(f"{file}: a colour mask, where stored ids are asked for; {self.hint}, or name its colours {DESCRIBE}")
        packed = _pack(stored)
        ids = self._color_table[packed]
        unknown = ids == NO_CLASS
        colors, counts = np.unique(packed[unknown], return_counts=True)
        strange = {_unpack(int(colors[i])): int(counts[i]) for i in np.argsort(-counts, kind="stable")}
        count = sum(strange.values())
        if count > UNKNOWN_SHARE * unknown.size:
            listed = ", ".join(f"{color} on {number} pixels" for color, number in list(strange.items())[:MAX_NAMED])
            raise DataError(
                f"{file}: {count} pixels ({count / unknown.size:.1%}) have a colour of no class, such as {listed};"
                f" up to {UNKNOWN_SHARE:.1%} would be taken as void. Is it saved without loss, and are these its colours"
                f" ({self.hint})?"
            )
        ids[unknown] = self.ignore_index
        return ids.astype(np.uint8), strange

    @property
    def _allowed(self) -> str:
        counted = [value for value, class_id in self.index_ids.items() if class_id != self.ignore_index]
        ignored = self.index_ids.keys() - counted
        return _ranges(counted) + (f" and {_ranges(ignored)} (ignored)" if ignored else "")

    @functools.cached_property
    def _index_table(self) -> np.ndarray:
        table = np.full(max(self.index_ids) + 2, NO_CLASS, np.int16)  # the last is for all that is larger
        table[list(self.index_ids)] = list(self.index_ids.values())
        return table

    @functools.cached_property
    def _color_table(self) -> np.ndarray:
        table = np.full(1 << 24, NO_CLASS, np.int16)
        for (red, green, blue), class_id in self.color_ids.items():
            table[red << 16 | green << 8 | blue] = class_id
        return table

    def __getstate__(self) -> dict[str, Any]:
        """Without the tables, which are large and soon made again."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def _pack(colors: np.ndarray) -> np.ndarray:
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _unpack(packed: int) -> Color:
    return packed >> 16, packed >> 8 & 255, packed & 255


def _ranges(values: Iterable[int]) -> str:
    """`0 to 10, 255`."""
    spans: list[list[int]] = []
    for value in sorted(values):
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in spans)
