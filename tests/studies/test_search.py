"""A search with the real Optuna, whose jobs are a formula."""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_runs import make_run
from omegaconf import OmegaConf

from hydra_plugins import search_sweeper, study_sweeper
from hydra_plugins.search_sweeper import SearchSweeper
from src.studies.ledger import Study, note, read_events, read_jobs, write_study

LR = "optimizer.lr=interval(0.0,1.0)"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what SQLAlchemy says of an old Optuna
    MODERN = int(importlib.import_module("optuna").__version__.partition(".")[0]) >= 3


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_sweeper, "write_page", lambda folder: False)


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Optuna's own, of each search of the test."""
    opened: list[Any] = []
    open_study = search_sweeper.open_study
    monkeypatch.setattr(search_sweeper, "open_study", lambda *a: opened.append(open_study(*a)) or opened[-1])
    return opened


def score_of(words: dict[str, str]) -> float:
    return 1 - abs(float(words["optimizer.lr"]) - 0.3)


class Formula(SearchSweeper):
    """Each job's score is that of its words; the numbers in `fails` fail, and at `stop_at` somebody presses Ctrl-C."""

    fails: tuple[int, ...] = ()
    stop_at = -1
    score: Callable[[dict[str, str]], float] = staticmethod(score_of)

    def _launch(self, jobs: list[list[str]], folder: Path) -> Any:
        for job in jobs:
            words = dict(word.split("=", 1) for word in job)
            number = int(words["hydra.sweep.subdir"].partition("_")[0])
            note(folder, number, "running")
            if number == self.stop_at:
                raise KeyboardInterrupt
            if number in self.fails:
                note(folder, number, "failed", error="loss is not finite")
            else:
                make_run(folder / words["hydra.sweep.subdir"], self.score(words))
                note(folder, number, "finished", score=self.score(words))


def search(folder: Path, *words: str, n_trials: int = 6, mode: str = "max", storage: str | None = None, **more: Any) -> Formula:
    if not folder.exists():
        folder.mkdir()
        write_study(folder, Study("made", None, list(words), {"tag": "x", "mode": mode}, "continue", {}, []))
    sweeper = Formula(n_trials, more.pop("n_jobs", 1), storage, more.pop("study_name", None), OmegaConf.create({"seed": 1}))
    sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    for name, value in more.items():
        setattr(sweeper, name, value)
    sweeper.sweep(list(words))
    return sweeper


def rates(folder: Path) -> list[float]:
    return [float(dict(word.split("=") for word in job.overrides)["optimizer.lr"]) for job in read_jobs(folder)]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_trial_that_fails_ends_no_search_and_the_best_of_the_others_is_told(
    mode: str, tmp_path: Path, studies: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "search"
    search(folder, "seed=3", LR, mode=mode, n_jobs=2, fails=(0, 3))
    jobs = read_jobs(folder)
    assert [job.status for job in jobs] == ["failed", "finished", "finished", "failed", "finished", "finished"]
    assert [job.overrides[0] for job in jobs] == ["seed=3"] * 6
    assert len(set(rates(folder))) == 6
    assert all(0 <= rate <= 1 for rate in rates(folder))
    assert [trial.state.name for trial in studies[0].trials] == ["FAIL" if n in (0, 3) else "COMPLETE" for n in range(6)]
    assert [trial.params["optimizer.lr"] for trial in studies[0].trials] == rates(folder)
    scores = {rate: 1 - abs(rate - 0.3) for n, rate in enumerate(rates(folder)) if n not in (0, 3)}
    best = (max if mode == "max" else min)(scores, key=lambda rate: scores[rate])
    told = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert told == {"name": "optuna", "best_params": {"optimizer.lr": best}, "best_value": scores[best]}
    assert f"best of the search: {scores[best]:.4f} with optimizer.lr={best}" in capsys.readouterr().out


def test_a_search_in_which_all_fail_ends_with_exit_code_1_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        search(tmp_path / "search", LR, n_trials=2, fails=(0, 1))
    assert ended.value.code == 1
    assert [job.status for job in read_jobs(tmp_path / "search")] == ["failed", "failed"]


def test_a_score_that_is_no_number_is_a_failed_trial(tmp_path: Path, studies: list[Any]) -> None:
    search(tmp_path / "search", LR, n_trials=2, score=lambda words: float("nan"))
    assert [trial.state.name for trial in studies[0].trials] == ["FAIL", "FAIL"]


def test_a_search_that_was_stopped_goes_on_with_all_that_it_learnt(tmp_path: Path, studies: list[Any]) -> None:
    folder = tmp_path / "search"
    channels = "model.channels=[4,8],[8,16]"
    with pytest.raises(KeyboardInterrupt):
        search(folder, LR, channels, "seed=range(1,9,2)", fails=(1,), stop_at=3)
    before, words = rates(folder), [job.overrides for job in read_jobs(folder)]
    assert [job.status for job in read_jobs(folder)] == ["finished", "failed", "finished", "interrupted"]
    search(folder, LR, channels, "seed=range(1,9,2)")
    jobs = read_jobs(folder)
    assert [(job.status, job.attempts) for job in jobs] == [
        *(("finished", 1), ("failed", 1), ("finished", 1), ("finished", 2), ("finished", 1), ("finished", 1))
    ]
    assert rates(folder)[:4] == before
    assert len(set(rates(folder))) == 6  # a sampler with the same seed would draw the first ones again
    assert [job.overrides for job in jobs][:4] == words
    learnt = {trial.params["optimizer.lr"]: trial.value for trial in studies[1].trials}
    assert learnt == {rate: None if n == 1 else 1 - abs(rate - 0.3) for n, rate in enumerate(rates(folder))}
    assert {job.overrides[1] for job in jobs} <= {"model.channels=[4,8]", "model.channels=[8,16]"}
    assert {job.overrides[2] for job in jobs} <= {f"seed={seed}" for seed in (1, 3, 5, 7)}
    search(folder, LR, channels, "seed=range(1,9,2)", n_trials=7)
    assert len(read_jobs(folder)) == 7


def test_a_search_over_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    search(folder, LR, n_trials=1)
    for word in ("optimizer.lr=0.5,0.7", "optimizer.lr=range(3)", "optimizer.momentum=interval(0.1,0.2)"):
        with pytest.raises(SystemExit) as ended:
            search(folder, word, n_trials=2)
        assert str(ended.value.code).startswith("error: ")
        assert "\n" not in str(ended.value.code)
        assert len(read_jobs(folder)) == 1


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "{_target_: os.mkdir}", "../../evil", "unet.."])
def test_no_value_of_a_file_becomes_one_of_a_job(value: str, tmp_path: Path) -> None:
    for word in (LR, "model=unet,attunet"):
        folder, key = tmp_path / word[:5], word.partition("=")[0]
        folder.mkdir()
        job = {"name": "0_x", "overrides": [f"{key}={value}"], "short_id": ""}
        write_study(folder, Study("made", None, [word], {"tag": "x", "mode": "max"}, "continue", {}, [job]))
        with pytest.raises(SystemExit) as ended:
            search(folder, word)
        assert str(ended.value.code).startswith("error: ")
        assert read_events(folder) == []


@pytest.mark.skipif(not MODERN, reason="Optuna's storage needs Optuna 3 or newer: make setup")
def test_a_database_keeps_the_trials_once(tmp_path: Path, studies: list[Any]) -> None:
    storage, folder = f"sqlite:///{tmp_path / 'search.db'}", tmp_path / "search"
    search(folder, LR, n_trials=3, storage=storage, fails=(1,))
    search(folder, LR, n_trials=5, storage=storage)
    assert [trial.params["optimizer.lr"] for trial in studies[1].trials] == rates(folder)
    assert [trial.state.name for trial in studies[1].trials] == ["COMPLETE", "FAIL", *["COMPLETE"] * 3]
    for elsewhere in ("one", "two"):
        search(tmp_path / elsewhere, LR, n_trials=2, storage=storage, study_name="shared")
    assert len(studies[-1].trials) == 4


def test_a_database_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        search(tmp_path / "search", LR, storage="nosuch:///x")
    assert str(ended.value.code).startswith("error: hydra.sweeper.storage=nosuch:///x: not usable (")
    assert "\n" not in str(ended.value.code)


def test_a_secret_among_the_words_of_a_search_is_not_stored(tmp_path: Path) -> None:
    search(tmp_path / "search", "+dataset.password=hunter2", LR, n_trials=1)
    assert [job.overrides[0] for job in read_jobs(tmp_path / "search")] == ["+dataset.password=***"]
