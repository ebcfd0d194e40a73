"""Where the best runs of a study's two best configurations differ most, as it is kept in the study's folder.

`contrast.py` finds it, which takes checkpoints, data and torch; a page is made from what is kept without any of these.
"""

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from src.durable import replace_text
from src.errors import UserError
from src.run_folder import short_hash
from src.stored_json import Color, Number, Pair, Picture, read_json
from src.studies.reading import Run
from src.studies.statistics.standing import Row, Table

DIFFERENCES = "differences.json"


@dataclass(frozen=True)
class Frame:
    """One frame: its mIoU with either checkpoint, and what it looks like, in base64 (a JPEG and three PNG).

    A copy that `save_differences` made has no image and no truth.
    """

    name: str
    score_a: Number
    score_b: Number
    image: Picture
    truth: Picture
    prediction_a: Picture
    prediction_b: Picture


@dataclass(frozen=True)
class Differences:
    """What is kept.

    Attributes:
        pair: Of which two runs, with their scores, it was found; see `pair_of`.
        labels: Of the two configurations, with the seed.
        runs: Names of the two runs' folders.
        epochs: Of their best checkpoints.
        sentence: What may be said of the two checkpoints.
        num_frames: That both were scored on.
        frames: Those that differ most, the largest difference first.
        legend: Name and colour (#rrggbb) of each class.
    """

    pair: str
    labels: Annotated[list[str], Pair]
    runs: Annotated[list[str], Pair]
    epochs: Annotated[list[int], Pair]
    sentence: str
    num_frames: int
    frames: list[Frame]
    legend: list[tuple[str, Color]]


def best_two(table: Table) -> list[tuple[Row, Run]]:
    """The first two rows, each with its best seed; fewer where not two have trained without a seed that diverged."""
    choose, rows = (min if table.measure.mode == "min" else max), [row for row in table.rows if row.runs and not row.diverged]
    return [(row, choose(row.runs, key=lambda run: run.score)) for row in rows[:2]]


def pair_of(table: Table) -> str:
    """Hash of the two runs and of their best scores: it changes when others come first, or one was trained on."""
    return short_hash(
        [[run.folder.name, run.facts.get("short_id"), run.score, run.facts.get("best_epoch")] for _, run in best_two(table)]
    )


def read_differences(folder: Path, table: Table) -> Differences | None:
    """What the study's folder keeps, unless it is damaged or of other runs than those that come first now."""
    with contextlib.suppress(UserError):
        found: Differences = read_json(folder, DIFFERENCES, Differences)
        return found if found.pair == pair_of(table) else None
    return None


def write_differences(folder: Path, found: Differences) -> None:
    """Into the study's folder, in one step."""
    replace_text(folder / DIFFERENCES, json.dumps(asdict(found), indent=1) + "\n")


def save_differences(folder: Path, target: Path) -> None:
    """Copies what a study's folder keeps, if anything, without image and truth: data sets seldom allow that these go on.

    What is damaged is told in one line and left out.
    """
    file = folder / DIFFERENCES
    if not file.is_file():
        return
    try:
        found: Differences = read_json(folder, DIFFERENCES, Differences)
    except UserError as error:
        print(f"not saved, where the two best differ frame by frame, as the file is damaged: {error}")
        return
    write_differences(target, replace(found, frames=[replace(frame, image="", truth="") for frame in found.frames]))
