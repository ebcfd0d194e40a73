"""Runs on disk, read back: for tables, comparisons and the choice of what to score."""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from src.errors import ConfigError, UserError
from src.lock import is_locked
from src.protocol import complete_protocol
from src.resume import flatten
from src.run_folder import OUTPUTS, STUDY, read_run, short_hash

TOP = re.compile(r"(?P<sweep>.+):top(?P<number>\d+)")
DATE = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_")
NEVER_ENDED = "interrupted"
PLACED_AND_LAUNCHED = ("hydra.run.", "hydra.sweep.", "hydra.launcher.", "hydra/launcher=")


@dataclass(frozen=True)
class Run:
    """A run's folder and what its `run.json` says."""

    folder: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the folder under outputs/."""
        return str(self.config.get("name") or self.folder.parent.name)

    @property
    def status(self) -> str:
        """As in run.json; one whose process is gone without a word counts as interrupted."""
        status = str(self.facts.get("status", "unknown"))
        return NEVER_ENDED if status == "running" and not is_locked(self.folder) else status

    @property
    def score(self) -> float:
        """The best one of the monitored tag; NaN before the first."""
        return _number(self.facts.get("best_score"))

    @property
    def last_score(self) -> float:
        """That of the last epoch."""
        return self.score_at_end(str(self.config.get("monitor.tag")))

    def score_at_end(self, tag: str) -> float:
        """Of the last epoch, by any tag; NaN where there is none."""
        return _number((self.facts.get("final_scores") or {}).get(tag))

    @property
    def words(self) -> list[str]:
        """Of its command line, which compose it again; not where it lies, nor what launched it."""
        words = [str(word) for word in self.facts.get("overrides") or []]
        return [word for word in words if not word.lstrip("+~").startswith(PLACED_AND_LAUNCHED)]

    @property
    def seed(self) -> int:
        """That everything random starts from."""
        return int(self.config.get("seed", 0))

    @property
    def protocol(self) -> dict[str, Any]:
        """How its score was taken; empty where it does not say."""
        return complete_protocol(self.facts.get("protocol") or {})

    @property
    def fingerprint(self) -> str:
        """Of the protocol of its score; runs that have none are each alone with theirs."""
        known = self.facts.get("protocol_fingerprint")
        if not known and self.facts.get("protocol"):  # of a run that did not hash it yet
            known = short_hash([self.facts["protocol"], self.facts.get("data_fingerprint")])
        return str(known or f"unknown ({self.folder.name})")

    @cached_property
    def config(self) -> dict[str, Any]:
        """Dotted keys and values."""
        return flatten(self.facts.get("config") or {})

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """Of metrics.csv; a cell without a number is NaN."""
        file = self.folder / "metrics.csv"
        if not file.is_file():
            return []
        with file.open(encoding="utf-8", newline="") as opened:
            return [{tag: _number(value) for tag, value in row.items() if tag} for row in csv.DictReader(opened)]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def read_runs(*roots: Path) -> tuple[list[Run], list[str]]:
    """Every run under the folders, themselves too, each once, oldest first, and a line for each that cannot be read."""
    runs, problems = [], []
    for folder in {folder.resolve(): folder for root in roots for folder in run_folders(root)}.values():
        try:
            if facts := read_run(folder):
                runs.append(Run(folder, facts))
        except (UserError, OSError) as error:
            problems.append(str(error))
    return sorted(runs, key=lambda run: (str(run.facts.get("start")), _natural(run.folder.name))), problems


def run_folders(root: Path) -> Iterator[Path]:
    """Folders with a run.json; links and hidden folders are not entered."""
    if (root / "run.json").is_file():
        yield root
        return
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            yield from run_folders(folder)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def find_sweep(name: str) -> Path:
    """A sweep's folder, given itself or as a name, whose newest sweep by the date in its folder's name it then is.

    Raises:
        ConfigError: If there is none.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    sweeps = [path for path in (OUTPUTS / "multirun" / name).glob("*") if path.is_dir()]
    if not sweeps:
        known = sorted(path.name for path in (OUTPUTS / "multirun").glob("*"))
        raise ConfigError(f"{name}: no such folder, and no sweep of that name; there are {', '.join(known) or 'none'}")
    return max(sweeps, key=lambda path: (bool(DATE.match(path.name)), path.name))  # one named by hand has no date


def choose_runs(wanted: str | list[str]) -> list[Path]:
    """Folders of the runs that `best`, `SWEEP:top3`, a folder, or a list of these mean; each once.

    Raises:
        ConfigError: If there are none.
    """
    if isinstance(wanted, list):
        if not wanted:
            raise ConfigError("run=[]: no run named; give a run's folder, best, or SWEEP:top3")
        return list(dict.fromkeys(folder for word in wanted for folder in choose_runs(str(word))))
    match = TOP.fullmatch(wanted)
    if wanted != "best" and not match:
        if (Path(wanted) / "run.json").is_file():
            return [Path(wanted)]
        if (Path(wanted) / STUDY).is_file() or (not Path(wanted).is_dir() and (OUTPUTS / "multirun" / wanted).is_dir()):
            raise ConfigError(f"run={wanted}: a sweep; give {wanted}:top1 for its best run, or the folder of one of its jobs")
        raise ConfigError(f"run={wanted}: no run.json there; give a run's folder, best, or SWEEP:top3")
    root, number = (find_sweep(match["sweep"]), int(match["number"])) if match else (OUTPUTS, 1)
    if number < 1:
        raise ConfigError(f"run={wanted}: top0 is none; give top1 or more")
    finished = [run for run in read_runs(root)[0] if run.status == "finished" and not math.isnan(run.score)]
    if not finished:
        raise ConfigError(f"run={wanted}: no finished run in {root}")
    return [run.folder for run in rank_like_newest(finished)[:number]]


def rank_like_newest(runs: list[Run]) -> list[Run]:
    """Those whose score was taken as the newest run's was, best first; others are not ranked with them."""
    newest = max(runs, key=lambda run: str(run.facts.get("end")))
    alike = [run for run in runs if _kind_of(run) == _kind_of(newest)]
    return sorted(alike, key=lambda run: run.score, reverse=newest.config.get("monitor.mode") != "min")


def _kind_of(run: Run) -> tuple[str, Any, Any]:
    return run.fingerprint, run.config.get("monitor.tag"), run.config.get("monitor.mode")
