"""A sweep before its first job: what is refused."""

import importlib
import sys
import warnings
from pathlib import Path

import pytest

from src.config import Config
from src.errors import ConfigError
from src.redaction import Redactor
from src.studies.ledger import read_study
from src.studies.sweep import Options
from src.sweep_command import Command, read_command
from src.sweeping import check_points, claim_search

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what SQLAlchemy says of an old Optuna
    importlib.import_module("optuna")


@pytest.mark.parametrize("sweeper", ["study", "optuna"])
def test_jobs_cannot_go_on_in_one_runs_folder(tiny_overrides: list[str], sweeper: str) -> None:
    def never(config: Config | None = None) -> None:
        pytest.fail("it was begun")

    words = [*tiny_overrides, "seed=0,1", "training.resume=outputs/a/run", f"hydra/sweeper={sweeper}"]
    command, said = (
        Command([], words, Options(), None),
        r"^training\.resume=outputs/a/run: a job of a sweep .* allowed are never and",
    )
    begin = {
        "study": lambda: check_points(words, never, Redactor([])),
        "optuna": lambda: claim_search(command, never, Redactor([])),
    }
    with pytest.raises(ConfigError, match=said):
        begin[sweeper]()


@pytest.mark.parametrize("key", ["study.plan=true", "study.again=true", "study.on_error=stop"])
def test_a_search_refuses_what_needs_known_points(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["seed=0,1", "hydra/sweeper=optuna", key]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *words])

    def never(config: Config | None = None) -> None:
        pytest.fail("it was begun")

    with pytest.raises(ConfigError, match=rf"{key.partition('=')[0]}: not for a search"):
        claim_search(read_command(words), never, Redactor([]))


SEARCH = ["hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(0.001,0.3))", "threads=1"]


def begin(*words: str, folder: Path | None = None) -> Path:
    return claim_search(Command([], list(words), Options(), folder), lambda config: None, Redactor([]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/sweeper=optuna", "threads=1"], "hydra/sweeper=optuna: nothing to search; give an interval"),
        ([*SEARCH, "optimizer.lr=0.1"], "optimizer.lr=tag(log,interval(0.001,0.3)) and optimizer.lr=0.1: the same key twice"),
        (["hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(0,0.3))"], "optimizer.lr=tag(log,interval(0,0.3)): "),
        (["hydra/sweeper=optuna", "optimizer.lrr=interval(0.1,0.3)"], "optimizer.lrr: no such key"),
        ([*SEARCH, "hydra.sweeper.n_trials=many"], "Value 'many'"),
        ([*SEARCH, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0; allowed are whole numbers from 1"),
        ([*SEARCH, "study=default_recipe"], "study: a search finds its points by itself"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        begin(*words)
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_search_goes_on_in_its_folder_with_the_same_keys_alone(tmp_path: Path) -> None:
    folder = begin(*SEARCH, folder=tmp_path / "search")
    study = read_study(folder)
    assert study.jobs == []
    assert study.common["optimizer.lr"] == pytest.approx((0.001 + 0.3) / 2)
    assert study.monitor == {"tag": "val/miou", "mode": "max"}
    again = Command([], SEARCH, Options(resume=str(folder)), folder)
    assert claim_search(again, lambda config: None, Redactor([])) == folder
    other = Command([], [*SEARCH, "seed=5"], Options(resume=str(folder)), folder)
    with pytest.raises(ConfigError, match=r"the sweep was of other values: seed \(0 there, 5 here\); start a new sweep"):
        claim_search(other, lambda config: None, Redactor([]))
    with pytest.raises(ConfigError, match="holds a sweep already"):
        begin(*SEARCH, folder=folder)
