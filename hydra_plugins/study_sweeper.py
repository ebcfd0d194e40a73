"""Hands Hydra the points of a study or of a plain `-m` sweep. Hydra finds sweepers only in this folder."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.redaction import Redactor
from src.studies.isolation import wait_for_others
from src.studies.ledger import read_jobs
from src.studies.points import expand_points, job_names
from src.studies.progress import PAGE, write_page
from src.studies.submitted import private_pickles
from src.studies.sweep import command_to_go_on, unfinished


@dataclass
class StudySweeperConfig:
    """Registers the sweeper as hydra/sweeper=study."""

    _target_: str = "hydra_plugins.study_sweeper.StudySweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperConfig, provider="src")


class StudySweeper(Sweeper):
    """Runs every point; a failing one does not keep the others from running, but makes the exit code 1."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before `sweep`."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launches all points and prints how they ended."""
        assert self.config is not None
        assert self.launcher is not None
        study: Any = OmegaConf.to_container(self.config.study) if self.config.study else None
        points = expand_points(arguments, study)
        names = job_names(points)
        folder = Path(self.config.hydra.sweep.dir)
        todo = unfinished(folder)
        jobs = [[*points[number], f"hydra.sweep.subdir={names[number]}"] for number in todo]
        results = self._launch(jobs, folder) if jobs else []
        wait_for_others(folder)
        self.end(folder)
        return results

    def end(self, folder: Path, good: Sequence[str] = ("finished",)) -> None:
        """Prints how all jobs stand, writes the page and, unless all are in a good standing, ends with exit code 1."""
        print_summary(folder)
        if write_page(folder):
            print(f"report: {folder / PAGE}", flush=True)
        standing = {job.status for job in read_jobs(folder)}
        if not standing.issubset(good) or "finished" not in standing:
            print(f"what is not finished is tried again by: {command_to_go_on(folder)}", flush=True)
            sys.exit(1)

    def _launch(self, jobs: list[list[str]], folder: Path) -> Any:
        assert self.config is not None
        assert self.launcher is not None
        launcher: Any = self.launcher
        is_submitit = "submitit" in str(self.config.hydra.launcher._target_)
        if is_submitit:  # else it begins a job whose time is over again three times here, and never on Slurm
            launcher.params.setdefault("max_num_timeout", 0)
        try:
            with private_pickles(folder, is_submitit):
                return launcher.launch(jobs, initial_job_idx=0)
        except Exception as error:  # of a worker that was killed, say; how the jobs stand, the ledger says
            reason = Redactor(sys.argv[1:]).text(" ".join(str(error).split()))[:300]
            print(f"the launcher gave up: {type(error).__name__}: {reason}", file=sys.stderr, flush=True)
            return []


def print_summary(folder: Path) -> None:
    """One line a job: its score, or how it stands."""
    for job in read_jobs(folder):
        outcome = "nan" if job.score is None else f"{job.score:.4f}"
        if job.status != "finished":
            outcome = f"{job.status}: {job.error}" if job.error else job.status
        print(f"  {job.name:40} {outcome}")
