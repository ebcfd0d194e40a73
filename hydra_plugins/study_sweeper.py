"""Hands Hydra the points of a study or of a plain `-m` sweep. Hydra finds sweepers only in this folder."""

import sys
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.studies.points import expand_points, job_names


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
        jobs = [[*point, f"hydra.sweep.subdir={name}"] for point, name in zip(points, names, strict=True)]
        results = self.launcher.launch(jobs, initial_job_idx=0)
        print_summary(names, results)
        if any(result.status != JobStatus.COMPLETED for result in results):
            sys.exit(1)
        return results


def print_summary(names: list[str], results: Any) -> None:
    """One line a job: its score, or that it failed."""
    for name, result in zip(names, results, strict=True):
        print(f"  {name:40} {_outcome(result)}")


def _outcome(result: JobReturn) -> str:
    if result.status == JobStatus.COMPLETED:
        return f"{result.return_value:.4f}"
    return f"failed: {result._return_value}"
