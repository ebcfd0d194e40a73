"""A whole sweep before its first job: its own keys, whether it goes on with another, and its folder."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.config import is_harmless
from src.config_errors import quoted
from src.environment import program
from src.errors import ConfigError
from src.redaction import HIDDEN
from src.resume import flatten
from src.run_folder import OUTPUTS, STUDY, Launch, claim_folder, short_hash
from src.studies.ledger import Study, claim, note, note_missed_end, read_jobs, read_study, write_study
from src.studies.points import Point, job_names
from src.trust import runs_code

ON_ERROR = ("continue", "stop")


@dataclass
class Options:
    """Keys that say how a sweep is run, not what it trains: `study.resume`, `study.plan` and so on."""

    resume: str | None = None  # the folder of a sweep to go on with
    plan: bool = False  # true: what the sweep will cost is printed, and nothing begun
    on_error: str | None = None  # stop: no more jobs are begun once one has failed
    again: bool = False  # true: configurations that were finished before are trained again


def take_options(words: list[str]) -> tuple[Options, list[str]]:
    """The sweep's own keys, and the other words.

    Raises:
        ConfigError: If a value is not allowed.
    """
    options, others = Options(), []
    for word in words:
        key, _, value = word.partition("=")
        name = key.removeprefix("study.")
        if key.startswith("study.") and name in vars(options):
            setattr(options, name, _read(name, value.strip("'\"")))
        else:
            others.append(word)
    return options, others


def _read(name: str, value: str) -> str | bool:
    allowed = {"plan": ("true", "false"), "again": ("true", "false"), "on_error": ON_ERROR}.get(name)
    if allowed and value.lower() not in allowed:
        raise ConfigError(f"study.{name}={value}; allowed are {', '.join(allowed)}")
    if name == "resume" and not value:
        raise ConfigError("study.resume=: no folder given (a variable that is not set?); give that of a sweep, or leave it out")
    return value.lower() == "true" if name in ("plan", "again") else value


def budget_of(study: dict[str, Any] | None) -> float | None:
    """Hours that all jobs may take one after another; None: as long as they need.

    Raises:
        ConfigError: If the study's budget is not of the form `{hours: 12}`.
    """
    budget = (study or {}).get("budget")
    if budget is None:
        return None
    hours = budget.get("hours") if isinstance(budget, dict) and len(budget) == 1 else None
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not hours > 0:
        raise ConfigError(f"study.budget={budget}; allowed is {{hours: NUMBER}}, for all jobs together, in the study's file")
    return float(hours)


def words_of(folder: Path) -> list[str]:
    """The words that a sweep was started with, for one that goes on without any of its own."""
    words = read_study(folder).words
    if hidden := [word for word in words if HIDDEN in word]:
        raise ConfigError(f"study.resume={folder}: {hidden[0]} was a secret and is not stored; give the whole command again")
    return words


def refuse_duplicates(points: Sequence[Point], launches: Sequence[Launch]) -> None:
    """Raises ConfigError, naming both jobs, if two train the very same configuration."""
    seen: dict[str, int] = {}
    for number, launch in enumerate(launches):
        earlier = seen.setdefault(short_hash(launch.config), number)
        if earlier != number:
            raise ConfigError(f"jobs {earlier} and {number} are the same: {' '.join(points[number])}; list each value once")


def claim_sweep(
    folder: Path | None,
    words: list[str],
    points: list[Point],
    launches: list[Launch],
    options: Options,
    costs: Mapping[int, Any] | None = None,
) -> Path:
    """The sweep's folder with its `study.json`: a new one, one given by hand, or that of the sweep which goes on.

    A search has no points yet, and one launch, which says what its trials share. `costs` are what jobs are planned to take, by
    number, where that is known.

    Raises:
        ConfigError: If another sweep lies there, or the one that goes on was of other jobs.
    """
    study = _describe(words, points, launches, options, costs or {})
    if folder is not None and (folder / STUDY).exists():
        if not options.resume and launches[0].config["training"]["resume"] != "auto":
            raise ConfigError(f"hydra.sweep.dir={folder}: holds a sweep already; study.resume={folder} goes on with it")
        _go_on(folder, study, options)
        return folder
    if options.resume:
        read_study(Path(options.resume))  # says that it is none
    folder = folder or claim_folder(OUTPUTS / "multirun" / study.name, short_hash([launch.short_id for launch in launches]))
    folder.mkdir(parents=True, exist_ok=True)
    write_study(folder, study)
    return folder


def _describe(words: list[str], points: list[Point], launches: list[Launch], options: Options, costs: Mapping[int, Any]) -> Study:
    """What `study.json` says of the sweep."""
    first = launches[0]
    question = (first.stored["study"] or {}).get("question")
    study = Study(
        name=first.config["name"],
        question=None if question is None else str(question),
        words=[first.redactor.word(word) for word in words],
        monitor=first.config["monitor"],
        on_error=options.on_error or "continue",
        again=options.again,
        common=flatten(_trained(first.stored)),
        jobs=[
            {"name": name, "overrides": [first.redactor.word(word) for word in point], "short_id": launch.short_id}
            for name, point, launch in zip(job_names(points), points, launches, strict=False)
        ],
    )
    for number, cost in costs.items():
        study.jobs[number]["planned"] = vars(cost)
    return study


def _go_on(folder: Path, study: Study, options: Options) -> None:
    """Checks that it is the same sweep; what failed is queued again, and an end that nobody could write down is added."""
    before = read_study(folder)
    _check_same(folder, before, study)
    write_study(folder, replace(before, on_error=options.on_error or before.on_error, again=options.again or before.again))
    for job in [job for job in read_jobs(folder) if job.status == "finished" or (job.status == "failed" and study.jobs)]:
        with claim(folder, job.number) as is_mine:
            if is_mine and job.status == "finished":
                note_missed_end(folder, job.number, job.score)
            elif is_mine:  # else `study.on_error=stop` would take it for a failure of now
                note(folder, job.number, "queued")


def _trained(config: dict[str, Any]) -> dict[str, Any]:
    """Without what only says how a run or a sweep is started."""
    training = {key: value for key, value in config["training"].items() if key != "resume"}
    return {key: value for key, value in config.items() if key not in ("study", "name")} | {"training": training}


def _check_same(folder: Path, before: Study, after: Study) -> None:
    for number, (old, new) in enumerate(zip(before.jobs, after.jobs, strict=False)):
        if old["name"] != new["name"]:
            raise ConfigError(f"{folder}: job {number} is {old['name']} there and {new['name']} here; start a new sweep")
    if after.jobs and len(before.jobs) != len(after.jobs):
        raise ConfigError(f"{folder}: has {len(before.jobs)} jobs, here are {len(after.jobs)}; start a new sweep")
    keys = [key for key in sorted(before.common | after.common) if before.common.get(key) != after.common.get(key)]
    is_other = [job["short_id"] for job in before.jobs] != [job["short_id"] for job in after.jobs]
    if is_other if after.jobs else not all(map(is_harmless, keys)):
        changes = ", ".join(f"{key} ({before.common.get(key)} there, {after.common.get(key)} here)" for key in keys)
        raise ConfigError(f"{folder}: the sweep was of other values: {changes or 'of its swept keys'}; start a new sweep")


def command_to_go_on(folder: Path) -> str:
    """What is typed to do the jobs of a sweep that are not finished."""
    again = shlex.join(word for word in read_study(folder).words if runs_code(word))
    return f"{program()} -m src.train -m study.resume={quoted(folder)} {again}".rstrip()


def unfinished(folder: Path) -> list[int]:
    """Numbers of the jobs that are still to be run or to go on."""
    return [job.number for job in read_jobs(folder) if job.status != "finished"]
