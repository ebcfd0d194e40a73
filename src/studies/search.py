"""A search: Optuna asks for points, one after another, and is told the scores that the ledger has."""

import logging
import math
import warnings
from typing import TYPE_CHECKING, Any

from src.config_errors import Override
from src.errors import ConfigError
from src.studies.ledger import Job
from src.studies.points import Point, parse_sweep

if TYPE_CHECKING:
    from optuna import Study, Trial

Space = dict[str, Override]  # by key, what is searched
JOB = "job"  # attribute of a trial: its folder


def read_space(words: list[str]) -> tuple[Point, Space]:
    """The words that all trials share, and what is searched.

    Raises:
        ConfigError: If no word lists values or gives an interval.
    """
    parsed = parse_sweep(words)
    space = {override.get_key_element(): override for override in parsed if override.is_sweep_override()}
    if not space:
        raise ConfigError(
            "hydra/sweeper=optuna: nothing to search; give an interval or values, such as optimizer.lr=interval(0.01,0.3)"
        )
    return [override.input_line or "" for override in parsed if not override.is_sweep_override()], space


def typical_point(space: Space) -> Point:
    """The middle of each interval, and the first of listed values."""
    point = []
    for key, override in space.items():
        values: Any = override.value()
        if override.is_interval_sweep():
            middle = (values.start + values.end) / 2
            point.append(f"{key}={int(middle) if _is_whole(override) else middle}")
        else:
            point.append(f"{key}={next(override.sweep_string_iterator())}")
    return point


def _is_whole(interval: Override) -> bool:
    values: Any = interval.value()
    return isinstance(values.start, int) and isinstance(values.end, int)


def open_study(name: str, mode: str, storage: str | None, seed: int | None) -> "Study":
    """Optuna's study, in the database `storage`, or in memory; `mode` is max or min.

    Raises:
        ConfigError: If Optuna is not installed, or cannot use the storage.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("hydra/sweeper=optuna: Optuna is not installed; pip install '.[optuna]'") from error
    optuna.logging.set_verbosity(logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed)
    options: Any = {"direction": f"{mode}imize", "sampler": sampler, "load_if_exists": True}
    try:
        return optuna.create_study(storage=storage, study_name=name, **options)
    except Exception as error:  # of SQLAlchemy, of a database's driver, or of Optuna
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"hydra.sweeper.storage={storage}: not usable ({reason}); give such as sqlite:///search.db") from error


def ask(study: "Study", space: Space) -> tuple["Trial", Point]:
    """A new trial and its point; raises ConfigError for an interval that Optuna refuses."""
    trial = study.ask()
    for key, override in space.items():
        try:
            _suggest(trial, key, override)
        except ValueError as error:
            raise ConfigError(f"{override.input_line}: {error}") from error
    return trial, [f"{key}={trial.params[key]}" for key in space]


def _suggest(trial: "Trial", key: str, override: Override) -> None:
    """A number of an interval, whole where both of its ends are; else one of the values that are listed."""
    values: Any = override.value()
    if override.is_interval_sweep():
        suggest: Any = trial.suggest_int if _is_whole(override) else trial.suggest_float
        suggest(key, values.start, values.end, log="log" in values.tags)
    else:
        trial.suggest_categorical(key, list(override.sweep_string_iterator()))


def ask_again(study: "Study", space: Space, job: Job) -> tuple["Trial", Point]:
    """The trial of a job of a search that goes on, with its point.

    Raises:
        ConfigError: If the search is over other keys or values now.
    """
    words = {key: value for key, _, value in (word.partition("=") for word in job.overrides)}
    with warnings.catch_warnings():  # of a value outside its interval, and, in old versions, that this is experimental
        warnings.simplefilter("ignore")
        study.enqueue_trial({key: _read(words.get(key, ""), override) for key, override in space.items()})
        trial, point = ask(study, space)
    if any(str(trial.params[key]) != words.get(key) for key in space):
        raise ConfigError(f"job {job.number}, {job.name}: not of this search, which is over {', '.join(space)}; start a new one")
    trial.set_user_attr(JOB, str(job.folder))
    return trial, point


def _read(text: str, override: Override) -> Any:
    """As Optuna gave the value: a number, or one of the words that are listed."""
    if not override.is_interval_sweep():
        return text
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return math.nan  # which is in no interval


def tell(study: "Study", trial: "Trial", job: Job) -> None:
    """Tells the job's score; one that failed, or has no number, is a failed trial, which keeps no other from running."""
    from optuna.trial import TrialState

    if job.status == "finished" and job.score is not None and math.isfinite(job.score):
        study.tell(trial, job.score)
    else:
        study.tell(trial, state=TrialState.FAIL)
