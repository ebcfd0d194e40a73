"""A sweep before its first job: what is refused."""

import sys

import pytest

from src.config import Config
from src.errors import ConfigError
from src.redaction import Redactor
from src.studies.sweep import Options
from src.sweep_command import Command, read_command
from src.sweeping import check_points, search


@pytest.mark.parametrize("sweeper", ["study", "optuna"])
def test_jobs_cannot_go_on_in_one_runs_folder(tiny_overrides: list[str], sweeper: str) -> None:
    def never(config: Config | None = None) -> None:
        pytest.fail("it was begun")

    words = [*tiny_overrides, "seed=0,1", "training.resume=outputs/a/run"]
    command, said = (
        Command([], words, Options(), None),
        r"^training\.resume=outputs/a/run: a job of a sweep .* allowed are never and",
    )
    begin = {
        "study": lambda: check_points(words, never, Redactor([])),
        "optuna": lambda: search(command, never, Redactor([]), never),
    }
    with pytest.raises(ConfigError, match=said):
        begin[sweeper]()


@pytest.mark.parametrize("key", ["study.plan=true", "study.again=true", "study.on_error=stop", "study.resume=somewhere"])
def test_a_search_refuses_what_needs_known_points(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["seed=0,1", "hydra/sweeper=optuna", key]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *words])

    def never(config: Config | None = None) -> None:
        pytest.fail("it was begun")

    with pytest.raises(ConfigError, match=rf"{key.partition('=')[0]}: not for a search"):
        search(read_command(words), never, Redactor([]), never)
