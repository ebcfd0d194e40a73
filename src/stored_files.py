"""Reads the files of a run or a sweep as somebody else's: from within its folder alone, and of a limited size."""

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from src.errors import UserError

MOST_BYTES = 2**25  # of a file
MOST = 1e100  # of a number; its square is still one


def within(folder: Path, name: str) -> Path:
    """A path in the folder; raises UserError where links lead out of it, so that nothing else is read or written by them."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UserError(f"{path}: leads out of {folder}, and is not followed; put the file itself there")
    return path


def read_bytes(folder: Path, name: str, most: int = MOST_BYTES) -> bytes:
    """A file of the folder; raises UserError if it cannot be read, has more than `most` bytes, or lies elsewhere."""
    file = within(folder, name)
    try:
        if not file.is_file():  # a pipe would be waited for
            raise UserError(f"{file}: no such file")
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give access, or remove it") from error
    if len(content) > most:
        raise UserError(f"{file}: larger than {most} bytes; it may have no more")
    return content


def read_text(folder: Path, name: str) -> str:
    """As `read_bytes`; what is not UTF-8 becomes a question mark. Empty where there is no such file."""
    return read_bytes(folder, name).decode(errors="replace") if (folder / name).is_file() else ""


def read_table(folder: Path, name: str) -> list[dict[str, float]]:
    """The rows of a CSV file of the folder; a cell without a number is NaN. None where there is no such file."""
    if not (folder / name).is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_bytes(folder, name).decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{folder / name}: not readable as CSV ({error})") from error
    return [{tag: to_number(value) for tag, value in row.items() if tag} for row in rows]


def to_number(value: Any) -> float:
    """NaN where it is none, or too large to reckon with."""
    try:
        return number if abs(number := float(value)) <= MOST else math.nan
    except (TypeError, ValueError):
        return math.nan
