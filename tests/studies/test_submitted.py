"""What submitit is told of a sweep's jobs."""

from pathlib import Path
from typing import Any

import pytest
import submitit
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from submitit.core.utils import DelayedSubmission
from submitit.local.local import LocalExecutor

from hydra_plugins.study_sweeper import StudySweeper
from src.help import CONF


@pytest.mark.parametrize(("word", "times"), [("hydra.launcher.name=x", 0), ("+hydra.launcher.max_num_timeout=2", 2)])
def test_a_job_whose_time_is_over_begins_again_as_often_as_asked(
    word: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """submitit counts down from what it pickles with the job; of its own it would start at 3, here but not on Slurm."""

    def refuse(self: LocalExecutor, command: str) -> submitit.Job[Any]:
        raise RuntimeError("no process in this test")

    monkeypatch.setattr(LocalExecutor, "_submit_command", refuse)
    GlobalHydra.instance().clear()
    words = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=1", word, f"hydra.sweep.dir={tmp_path}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", words, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    sweeper, launcher = StudySweeper(), instantiate(config.hydra.launcher)
    sweeper.config, sweeper.launcher = config, launcher
    launcher.setup(hydra_context=None, task_function=None, config=config)
    assert sweeper._launch([["seed=0"]], tmp_path) == []
    assert "no process in this test" in capsys.readouterr().err
    (pickled,) = tmp_path.rglob("*.pkl")
    assert DelayedSubmission.load(pickled)._timeout_countdown == times
