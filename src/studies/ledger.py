"""How the jobs of a sweep stand: `study.json` says what was asked for, `ledger.jsonl` what became of it.

Both survive kill -9: the one is written whole before the first job, the other only grows, a line an event.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.durable import as_json, write_json
from src.errors import UserError
from src.lock import is_held, takes_lock
from src.run_folder import STUDY, read_run
from src.stored_files import read_bytes, within
from src.times import now

LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class Study:
    """What a sweep was asked for.

    Attributes:
        name: Of its folder's parent.
        question: That it is to answer, or None.
        words: Of the command line, without its own flags; secrets left out.
        monitor: `tag` and `mode` of the score.
        on_error: `continue` or `stop`.
        again: Whether configurations that were finished before are trained again.
        common: Flat configuration of job 0, by which a changed study is known.
        jobs: `name`, `overrides` and `short_id` of each, by number, and what it was `planned` to take.
    """

    name: str
    question: str | None
    words: list[str]
    monitor: dict[str, str]
    on_error: str
    common: dict[str, Any]
    jobs: list[dict[str, Any]]
    again: bool = False
    created: str = field(default_factory=now)


@dataclass(frozen=True)
class Job:
    """How one job stands.

    Attributes:
        status: queued, running, finished, failed or interrupted.
        score: The best one, or None.
        seconds: That it has taken, over all attempts that ended.
        attempts: How often it was begun.
        since: When it was begun the last time.
    """

    number: int
    name: str
    folder: Path
    overrides: list[str]
    short_id: str
    status: str
    score: float | None
    seconds: float
    host: str | None
    process: int | None
    attempts: int
    error: str | None
    since: str | None = None


def write_study(folder: Path, study: Study) -> None:
    """Writes `study.json` in one step."""
    write_json(folder / STUDY, vars(study))


def read_study(folder: Path) -> Study:
    """What `write_study` wrote; raises UserError where it is not there or damaged."""
    if not (folder / STUDY).is_file():
        raise UserError(f"{folder}: no {STUDY} there, so it is not a sweep's folder; give outputs/multirun/NAME/DATE_TIME_ID")
    from src.stored_json import StudyFacts, read_json  # pydantic, as in read_run

    return Study(**read_json(folder, STUDY, StudyFacts))


def note(folder: Path, number: int, status: str, **facts: Any) -> None:
    """Adds an event of a job; writers in other processes wait for each other, and a line torn by a kill is ended first."""
    event = {"job": number, "status": status, "time": now(), "host": socket.gethostname(), "process": os.getpid(), **facts}
    with (folder / LEDGER).open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        torn = b""
        if end:
            file.seek(end - 1)
            torn = b"" if file.read(1) == b"\n" else b"\n"
        file.write(torn + json.dumps(as_json(event), default=str).encode() + b"\n")
        os.fsync(file.fileno())


def note_missed_end(folder: Path, number: int, score: float | None) -> None:
    """Adds the end of a job that finished when its sweeper had been killed already; for whoever has claimed the job."""
    if not any(event["job"] == number and event["status"] == "finished" for event in read_events(folder)):
        note(folder, number, "finished", score=score)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All events in their order, without lines that a kill tore."""
    from src.stored_json import EventFacts, NotJSONError, parse_json

    events, file = [], folder / LEDGER
    for number, line in enumerate(read_bytes(folder, LEDGER).split(b"\n") if file.exists() else [], start=1):
        with contextlib.suppress(NotJSONError):
            events.append(parse_json(line, EventFacts, f"{file} line {number}"))
    return events


def read_jobs(folder: Path) -> list[Job]:
    """How every job of a sweep stands now, by number."""
    events: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in read_events(folder):
        events[event["job"]].append(event)
    jobs = []
    for number, planned in enumerate(read_study(folder).jobs):
        own, place = events[number], within(folder, planned["name"])
        status, score, error = _standing(place, is_claimed(folder, number), own)
        began = [event for event in own if event["status"] == "running"]
        last = began[-1] if began else {}
        jobs.append(
            Job(
                number=number,
                name=planned["name"],
                folder=place,
                overrides=planned["overrides"],
                short_id=planned["short_id"],
                status=status,
                score=score,
                seconds=sum((event.get("seconds", 0.0) for event in own), 0.0),
                host=last.get("host"),
                process=last.get("process"),
                attempts=len(began),
                error=error,
                since=last.get("time"),
            )
        )
    return jobs


def _standing(folder: Path, is_alive: bool, events: list[dict[str, Any]]) -> tuple[str, float | None, str | None]:
    """Status, score and error: as the run itself says once it has ended, for its sweeper may have been killed before it."""
    run = read_run(folder)
    last = events[-1] if events else {"status": "queued"}
    if run.get("status") == "finished":
        return "finished", run.get("best_score"), None
    if last["status"] == "running" and not is_alive:
        return "interrupted", run.get("best_score"), run.get("error") or "its sweep was killed"
    return last["status"], run.get("best_score"), last.get("error")


def claim_file(folder: Path, number: int) -> Path:
    """Whose lock says that somebody works on this job."""
    return folder / f".claim_{number}"


@contextlib.contextmanager
def claim(folder: Path, number: int) -> Iterator[bool]:
    """Whether this process alone may run the job; the claim dies with the process, if not with the block."""
    with claim_file(folder, number).open("ab") as lock:
        yield takes_lock(lock)


def is_claimed(folder: Path, number: int) -> bool:
    """Whether a living process works on the job."""
    return is_held(claim_file(folder, number))
