"""Runs on disk, read back: for tables, comparisons and the choice of what to score."""

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from src.config import YOUNGER_KEYS
from src.errors import ConfigError, NonFiniteLossError, UserError
from src.lock import is_locked
from src.protocol import complete_protocol
from src.resume import flatten
from src.run_folder import OUTPUTS, STUDY, read_run, short_hash
from src.stored_files import read_table, to_number
from src.stored_json import Stored, read_json
from src.times import parse_time

DATE = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_")
NEVER_ENDED = "interrupted"
LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)
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
        return to_number(self.facts.get("best_score"))

    @property
    def last_score(self) -> float:
        """That of the last epoch."""
        return self.score_at_end(str(self.config.get("monitor.tag")))

    def score_at_end(self, tag: str) -> float:
        """Of the last epoch, by any tag; NaN where there is none."""
        return to_number((self.facts.get("final_scores") or {}).get(tag))

    @property
    def is_scored(self) -> bool:
        """Whether it finished with a score that is a number."""
        return self.status == "finished" and math.isfinite(self.score)

    @property
    def has_diverged(self) -> bool:
        """Whether training itself failed: it stopped at a loss that was not finite, or finished without one finite score.

        Unlike a full disk, a killed process or memory that ran out, this is a result of the configuration.
        """
        if self.status == "failed":
            return str(self.facts.get("error")).partition(":")[0] == NonFiniteLossError.__name__
        return self.status == "finished" and not math.isfinite(self.score)

    @property
    def start(self) -> datetime:
        """When it was started first; long ago where run.json does not say."""
        return parse_time(self.facts.get("start")) or LONG_AGO

    @property
    def end(self) -> datetime:
        """When it ended last; long ago where run.json does not say."""
        return parse_time(self.facts.get("end")) or LONG_AGO

    @property
    def words(self) -> list[str]:
        """Of its command line, which compose it again; not where it lies, nor what launched it."""
        return [word for word in self.facts.get("overrides") or [] if not word.lstrip("+~").startswith(PLACED_AND_LAUNCHED)]

    @property
    def seed(self) -> int:
        """That everything random starts from."""
        return (self.facts.get("config") or {}).get("seed") or 0

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
        """Dotted keys and values; of an older run also those of keys that came later."""
        stored = flatten(self.facts.get("config") or {})
        return stored | YOUNGER_KEYS | stored if "dataset._target_" in stored else stored

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """Of metrics.csv; a cell without a number is NaN."""
        return read_table(self.folder, "metrics.csv")


def read_runs(*roots: Path) -> tuple[list[Run], list[str]]:
    """Every run under the folders, themselves too, each once, oldest first, and a line for each that cannot be read."""
    runs, problems = [], []
    for folder in {folder.resolve(): folder for root in roots for folder in run_folders(root)}.values():
        try:
            runs.append(Run(folder, read_run(folder)))
        except (UserError, OSError) as error:
            problems.append(str(error))
    return sorted(runs, key=lambda run: (run.start, _natural(run.folder.name))), problems


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
    """A sweep's folder, given itself or as a name, of which it then is the sweep that was started last.

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
    return max(sweeps, key=lambda path: (_start_of(path), bool(DATE.match(path.name)), path.name))  # by hand: without a date


def _start_of(sweep: Path) -> datetime:
    """When a sweep was started: as its study.json says, or, of another sweeper's, the start of its first run."""
    with contextlib.suppress(UserError):
        if found := parse_time(read_json(sweep, STUDY, Stored).get("created")):
            return found
    return min((run.start for run in read_runs(sweep)[0]), default=LONG_AGO)
