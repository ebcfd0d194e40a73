"""Hands Hydra the points that Optuna asks for."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from hydra_plugins.study_sweeper import StudySweeper
from src.errors import ConfigError
from src.redaction import Redactor
from src.studies.ledger import claim, read_jobs, read_study, write_study
from src.studies.points import Point, job_name
from src.studies.search import JOB, ask, ask_again, open_study, read_space, tell

OF_THE_SEARCH = -1  # number of the claim that keeps a second search out of the folder


@dataclass
class SearchSweeperConfig:
    """Registers the sweeper as hydra/sweeper=optuna.

    Attributes:
        n_trials: How many the search has in the end, those before it was resumed included.
        n_jobs: How many the launcher is given at once; those of one batch do not learn from each other.
        storage: A database that Optuna keeps its study in, such as sqlite:///search.db; null: memory, and the sweep's ledger.
        study_name: In the database; null: the name of the sweep's folder.
        sampler: `seed`, which makes the points repeatable.
    """

    _target_: str = "hydra_plugins.search_sweeper.SearchSweeper"
    n_trials: int = 20
    n_jobs: int = 1
    storage: str | None = None
    study_name: str | None = None
    sampler: dict[str, int | None] = field(default_factory=lambda: {"seed": None})


def register() -> None:
    """Stores the sweeper in place of Hydra's own plugin of that name, which an older environment may still have."""
    Plugins.instance()  # has that one store itself first
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=SearchSweeperConfig, provider="src")


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=SearchSweeperConfig, provider="src")


class SearchSweeper(StudySweeper):
    """Runs the trials that Optuna suggests. A failed trial is reported to Optuna as failed, and the search continues."""

    def __init__(self, n_trials: int, n_jobs: int, storage: str | None, study_name: str | None, sampler: Any) -> None:
        self.n_trials, self.n_jobs, self.storage, self.study_name, self.seed = n_trials, n_jobs, storage, study_name, sampler.seed

    def sweep(self, arguments: list[str]) -> None:
        """Searches, and prints how its trials ended and which was the best."""
        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        try:
            with claim(folder, OF_THE_SEARCH) as is_mine:
                if not is_mine:
                    raise ConfigError(f"{folder}: another process works on this search; wait for its end")
                self._search(arguments, folder)
        except ConfigError as error:
            sys.exit(Redactor(sys.argv[1:]).text(f"error: {error}"))
        self.end(folder, ("finished", "failed"))

    def _search(self, arguments: list[str], folder: Path) -> None:
        fixed, space = read_space(arguments)
        known, mode = read_jobs(folder), read_study(folder).monitor["mode"]
        seed = None if self.seed is None else self.seed + len(known)  # or it would draw the first points again
        study = open_study(self.study_name or folder.name, mode, self.storage, seed)
        stored = {trial.user_attrs.get(JOB) for trial in study.trials if trial.state.is_finished()}
        batch: dict[int, tuple[Any, Point]] = {}
        for job in known:
            if job.status not in ("finished", "failed"):
                batch[job.number] = ask_again(study, space, job)
            elif str(job.folder) not in stored:
                tell(study, ask_again(study, space, job)[0], job)
        number = len(known)
        while batch or number < self.n_trials:
            while len(batch) < self.n_jobs and number < self.n_trials:
                batch[number] = trial, point = ask(study, space)
                trial.set_user_attr(JOB, str(folder / add_job(folder, fixed, point)))
                number += 1
            jobs = read_jobs(folder)
            self._launch([[*fixed, *point, f"hydra.sweep.subdir={jobs[n].name}"] for n, (_, point) in batch.items()], folder)
            jobs = read_jobs(folder)
            for n, (trial, _) in batch.items():
                tell(study, trial, jobs[n])
            batch = {}
        tell_best(folder, mode, [trial for trial in study.trials if str(trial.user_attrs.get(JOB)).startswith(f"{folder}/")])


def add_job(folder: Path, fixed: Point, point: Point) -> str:
    """Adds a job to `study.json`; its name is its number and what was searched."""
    study, redactor = read_study(folder), Redactor(sys.argv[1:])
    fixed, point = ([redactor.word(word) for word in words] for words in (fixed, point))
    name = f"{len(study.jobs)}_{job_name(point, [word.partition('=')[0] for word in point])}"
    job = {"name": name, "overrides": [*fixed, *point], "short_id": ""}
    write_study(folder, replace(study, jobs=[*study.jobs, job]))
    return name


def tell_best(folder: Path, mode: str, trials: Sequence[Any]) -> None:
    """Prints the best trial, and writes it down as Hydra's own plugin does; nothing where none has a score."""
    if scored := [trial for trial in trials if trial.value is not None]:
        best = (max if mode == "max" else min)(scored, key=lambda trial: trial.value)
        file = folder / "optimization_results.yaml"
        found = {"name": "optuna", "best_params": best.params, "best_value": best.value}
        file.write_text(yaml.safe_dump(found), encoding="utf-8")
        words = " ".join(f"{key}={value}" for key, value in best.params.items())
        print(f"best of the search: {best.value:.4f} with {words}; see {file}")
