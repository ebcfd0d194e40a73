"""A run's folder: where it is, who works in it, and `run.json`, which says how the run stands."""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from src.config import RESULTS_VERSION
from src.durable import replace_text, write_durably, write_json, writing
from src.errors import ConfigError, WriteError
from src.lock import kept_free, takes_lock
from src.redaction import Redactor
from src.signals import Interrupted
from src.stored_files import within
from src.times import now

OUTPUTS = Path("outputs")
STUDY = "study.json"  # in the folder of a sweep
IN_USE = "another process is training in this folder; wait for it or use another"
LOGGER = logging.getLogger("src")
MADE_WITH = ("git_commit", "git_dirty", "packages", "host", "device", "precision", "ranks", "threads")  # facts of run.json
RESERVE = bytes(2**16)  # kept on the disk, so that a full one still has room for run.json to say how the run ended


@dataclass(frozen=True)
class Launch:
    """How a run was started.

    Attributes:
        command: Words of the command line.
        overrides: Those of them that set keys.
        folder: Given by hand as hydra.run.dir, or None.
        config: The resolved configuration.
        stored: The same without secrets.
        config_yaml: That as text.
        written_yaml: The configuration as text, before interpolations were filled in, without secrets.
        short_id: Hash of every key that changes the result.
        redactor: Takes secrets out of what else is written.
    """

    command: list[str]
    overrides: list[str]
    folder: Path | None
    config: dict[str, Any]
    stored: dict[str, Any]
    config_yaml: str
    written_yaml: str
    short_id: str
    redactor: Redactor


def slug(text: str, limit: int = 80) -> str:
    """The text as one safe folder name: letters, digits, `.`, `_` and `-`; never `..`, a path or a hidden name."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    safe = re.sub(r"\.{2,}", "-", safe).strip("-.")[:limit].rstrip("-.")
    if not safe:
        raise ConfigError(f"name={text!r}; use letters, digits, '.', '_' or '-'")
    return safe


def claim_folder(parent: Path, short_id: str) -> Path:
    """Makes parent/<date_time>_<short id>, which nobody had before; two starts in one second get two folders."""
    while True:
        folder = parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{short_id}"
        with writing(folder):
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                if not folder.exists():  # then it is above it that something else is in the way
                    raise
        time.sleep(0.1)


def short_hash(value: Any) -> str:
    """Eight hexadecimal digits of any JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


class RunFolder:
    """The folder that this process alone works in, and its `run.json`.

    Raises:
        ConfigError: If another process works in it.
    """

    def __init__(self, path: Path, is_resumed: bool = False) -> None:
        self.path = path
        self.is_resumed = is_resumed
        with writing(path):
            for name in ("checkpoints", "figures", "tensorboard"):
                (path / name).mkdir(parents=True, exist_ok=True)
            self._lock = within(path, ".lock").open("ab", buffering=0)
        if not takes_lock(self._lock):
            self._lock.close()
            raise ConfigError(f"{path}: {IN_USE}")
        os.register_at_fork(after_in_child=self._lock.close)  # else loader workers hold it for seconds after a kill
        self.facts: dict[str, Any] = read_run(path) if is_resumed else {}
        with writing(path):
            for left_over in [*path.glob(".*.tmp"), *path.glob("figures/.*.tmp")]:  # by a process that was killed
                left_over.unlink()

    def write(self, **facts: Any) -> None:
        """Adds facts to `run.json`, in one step."""
        self.facts |= facts
        write_json(self.path / "run.json", self.facts)

    def note_scores(self, saved: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
        """What `run.json` says of scores from its next write on, by the rows of `metrics.jsonl`.

        Those of a saved state, from its `epoch`, `best_score` and `best_epoch`: no file is ever ahead of the checkpoint.
        """
        scores = {
            self.facts.get(f"{kind}epoch"): self.facts.get(f"{name}_scores", {})
            for kind, name in (("", "final"), ("best_", "best"))
        }
        scores |= {
            row["epoch"]: {tag: value for tag, value in row.items() if tag != "epoch"} for row in rows
        }  # which may lack some
        self.facts |= {key: saved[key] for key in ("epoch", "best_score", "best_epoch")}
        self.facts |= {"final_scores": scores.get(saved["epoch"], {}), "best_scores": scores.get(saved["best_epoch"], {})}

    def count_failure(self) -> None:
        """Something could not be written; `run.json` says how often."""
        self.facts["failed_writes"] += 1

    @contextlib.contextmanager
    def going_on(self, name: str, *also: type[Exception]) -> Iterator[None]:
        """What is written within may fail, for want of room or access: it is told and counted, and the run goes on.

        After training it may fail with whatever else (`also`): a run that is trained is finished.

        Raises:
            WriteError: If the folder itself was taken away.
        """
        self._check_it_is_there()
        try:
            yield
        except (OSError, *also) as error:
            self.count_failure()
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            LOGGER.warning("%s: not written (%s); the run goes on", self.path / name, why)
            if not isinstance(error, OSError):
                LOGGER.debug("failed", exc_info=True)  # a mistake of ours: train.log gets the traceback

    def _check_it_is_there(self) -> None:
        try:
            there = os.path.samestat((self.path / ".lock").stat(), os.fstat(self._lock.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError:  # a file system that does not answer now
            there = True
        if not there:
            raise WriteError(
                f"{self.path}: was removed or replaced while the run trained, so that nothing more can be saved in it"
            )

    @contextlib.contextmanager
    def running(self, launch: Launch, facts: dict[str, Any]) -> Iterator[None]:
        """Says in `run.json` that the run is running, and at the end how it ended."""
        from src.environment import describe_environment, uncommitted_changes

        facts = describe_environment() | facts
        facts |= {
            "status": "running",
            "command": " ".join(map(launch.redactor.word, launch.command)),
            "overrides": [launch.redactor.word(override) for override in launch.overrides],
            "short_id": launch.short_id,
            "results_version": RESULTS_VERSION,
            "config": launch.stored,
            "start": self.facts.get("start", now()),
            "end": None,
            "error": None,
            "failed_writes": self.facts.get("failed_writes", 0),
            "mixed": self.is_resumed and self._is_mixed_with(facts),
        }
        try:
            with writing(self.path):
                self._lock.truncate(0)
                self._lock.write(RESERVE)
                self.write(**facts)
                replace_text(self.path / "config.yaml", launch.config_yaml)
                if facts["git_dirty"]:
                    changes = uncommitted_changes()
                    write_durably(self.path / "diff.patch", lambda file: file.write(changes))
                elif facts["git_commit"]:  # else nobody knows
                    (self.path / "diff.patch").unlink(missing_ok=True)
            yield
        except Interrupted as error:
            self._end("interrupted", str(error))
            raise
        except KeyboardInterrupt:
            self._end("interrupted", "stopped from the keyboard")
            raise
        except BaseException as error:
            LOGGER.debug("failed", exc_info=True)  # the traceback goes to train.log, the console gets the error
            self._end("failed", launch.redactor.text(f"{type(error).__name__}: {error}"))
            raise
        self._end("finished", None)

    def _is_mixed_with(self, facts: dict[str, Any]) -> bool:
        """Whether the run, going on with these facts, is partly of other code, packages or hardware; once so, it stays so."""
        return self.facts.get("mixed", False) or any(self.facts.get(key) != facts.get(key) for key in MADE_WITH)

    def _end(self, status: str, error: str | None) -> None:
        try:
            self._check_it_is_there()
            self._lock.truncate(0)
            self.write(status=status, end=now(), error=error)
        except (OSError, WriteError) as problem:
            LOGGER.warning("%s: does not say that the run is %s (%s)", self.path / "run.json", status, problem)


def read_run(folder: Path) -> dict[str, Any]:
    """What a folder's `run.json` says; empty where there is none yet, UserError where it is damaged."""
    if not (folder / "run.json").exists():
        return {}
    from src.stored_json import MOST_OF_RUN, RunFacts, read_json  # pydantic takes long to import

    return read_json(folder, "run.json", RunFacts, MOST_OF_RUN)


def end_dead_run(folder: Path, reason: str) -> None:
    """Corrects the `run.json` of a process that was killed and could not say so itself; leaves a living one alone."""
    if read_run(folder).get("status") != "running":
        return
    with kept_free(folder) as is_dead:
        facts = read_run(folder)  # anew: another process may have gone on with it meanwhile
        if is_dead and facts.get("status") == "running":
            write_json(folder / "run.json", facts | {"status": "failed", "end": now(), "error": reason})
