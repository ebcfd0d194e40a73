"""What a sweep is said to cost, against counts of another kind and against what is really saved."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from joblib import Parallel, cpu_count, delayed, parallel_config

from src.composing import compose_checked, prepare
from src.config import Config
from src.errors import ConfigError
from src.redaction import Redactor
from src.studies import measuring, plan
from src.studies.measuring import images_seen
from src.studies.plan import Cost, check_budget, make_plan, tell_plan, threads_of_each
from src.studies.sweep import budget_of
from src.sweep_command import read_command
from src.sweeping import check_points, plan_and_claim
from src.train import check_point


def composed(tiny_overrides: list[str], *words: str) -> Config:
    return prepare("config", [*tiny_overrides, *words])[1]


def test_a_network_is_measured_once_and_the_last_ones_are_judged_by_their_size(
    tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, cache_home: Path
) -> None:
    before = list(cache_home.iterdir())
    measured: list[list[int]] = []

    def pretend(config: Config) -> float:
        measured.append(config.model["channels"])
        return 0.5

    monkeypatch.setattr(measuring, "seconds_an_image", pretend)
    channels = ("[4,8]", "[4,8]", "[8,16]")
    configs = [composed(tiny_overrides, f"model.channels={c}", f"seed={n}") for n, c in enumerate(channels)]
    costs = make_plan(configs, 7.0)
    assert measured == [[4, 8], [8, 16]]
    assert costs[0] == costs[1]
    work = 0.5 * images_seen(configs[0])
    assert costs[0].seconds == pytest.approx(costs[2].seconds)
    assert costs[0].seconds == pytest.approx(7.0 + work, abs=0.1)
    measured.clear()
    monkeypatch.setattr(plan, "MOST_SECONDS", -1)
    costs = make_plan(configs, 7.0)
    assert measured == [[4, 8]]
    assert ((costs[2].seconds or 0) - (costs[0].seconds or 0)) == pytest.approx(
        work * ((costs[2].gmacs or 0) / (costs[0].gmacs or 1) - 1), abs=0.2
    )
    assert list(cache_home.iterdir()) == before


def test_a_job_begins_as_fast_however_many_there_are(tiny_overrides: list[str]) -> None:
    """Checks that take 0.2 s of the CPU each; of four composed points and three checked ones a job has one."""

    def check(config: Config) -> None:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

    composed(tiny_overrides)  # what only the first time takes is over
    begun = time.process_time()
    points, *_, start = check_points([*tiny_overrides, "seed=0,1,2"], check, Redactor([]))
    composing = time.process_time() - begun - len(points) * 0.2
    assert 0.2 < start - begun < 0.25 + composing / 2


def test_what_a_step_costs_is_measured_for_each_way_to_compute_it(tiny_overrides: list[str]) -> None:
    alike, others = ["seed=3", "optimizer.lr=1", "model.init=kaiming"], ["deterministic=true", "training.sync_batchnorm=true"]
    plain = plan._what_costs(composed(tiny_overrides))
    assert plan._what_costs(composed(tiny_overrides, *alike)) == plain
    for word in others:
        assert plan._what_costs(composed(tiny_overrides, word)) != plain, word


def test_what_cannot_be_measured_is_told_and_the_rest_goes_on(
    tiny_overrides: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = measuring.train_step

    def unable(state: Any, setup: Any, *batch: Any) -> None:
        if setup.batch_size == 3:
            raise RuntimeError("no such kernel on this device")
        train_step(state, setup, *batch)

    monkeypatch.setattr(measuring, "train_step", unable)
    costs = make_plan([composed(tiny_overrides, "loader.batch_size=3"), composed(tiny_overrides)], 0.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("time not measured (RuntimeError: ")
    assert costs[0].seconds is None
    assert costs[1].seconds
    assert " one after another, and 1 jobs of unknown time, checkpoints " in tell_plan(["0_a", "1_b"], costs)
    assert tell_plan(["0_a"], costs[:1]).partition("\n")[2].startswith("1 jobs, time not known, ")


def launcher(*words: str) -> Any:
    return compose_checked("config", list(words))[1].launcher


def test_joblib_shares_the_threads_out(tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what loky really gives the processes that it starts."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for at_once in (2, 3, -1):
        words = ["hydra/launcher='joblib'", *([f"++hydra.launcher.n_jobs='{at_once}'"] if at_once > 0 else [])]
        with parallel_config("loky", n_jobs=at_once):
            (given,) = Parallel()([delayed(os.getenv)("OMP_NUM_THREADS")])
        assert threads_of_each(launcher(*words)) == int(str(given))
    assert threads_of_each(launcher()) is None
    assert threads_of_each(launcher("hydra/launcher=joblib", "hydra/launcher=submitit_local")) is None
    assert threads_of_each(launcher("hydra/launcher=joblib", "hydra.launcher.n_jobs=0")) is None  # joblib itself refuses it
    monkeypatch.setenv("N", "1")
    assert threads_of_each(launcher("hydra/launcher=joblib", "hydra.launcher.n_jobs=${oc.env:N}")) == cpu_count()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of_each(launcher("hydra/launcher=joblib")) is None

    used: list[int | None] = []

    def pretend(config: Config) -> float:
        used.append(config.threads)
        return 1.0

    monkeypatch.setattr(measuring, "seconds_an_image", pretend)
    own = composed(tiny_overrides, "threads=2", "model.channels=[8,16]")
    make_plan([composed(tiny_overrides, "threads=null"), own], 0.0, 5)
    assert used == [5, 2]


def test_the_shortest_time_is_a_time(tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(tiny_overrides)
    monkeypatch.setattr(measuring, "seconds_an_image", lambda _: 1e-6)
    (cost,) = make_plan([config], 0.0)
    assert cost.seconds == pytest.approx(1e-6 * images_seen(config))


def test_a_plan_claims_no_more_than_is_so(
    tiny_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renders the embedded data set, if that is not there, as it measures on it."""
    data = tmp_path / "streets"
    sizes = ["dataset.num_train=4", "dataset.num_val=2", "dataset.num_test=1", "dataset.render_size=[32,32]"]
    words = [*tiny_overrides[1:], "dataset=streets", f"dataset.root='{data}'", *sizes, "seed=0,1", "study.plan=true"]
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *words])
    monkeypatch.chdir(tmp_path)
    assert plan_and_claim(read_command(words), check_point, Redactor([])) is None
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "study.plan=true stops here: times are those of this machine, now; no job was begun"
    assert [path.name for path in tmp_path.iterdir() if path.name != "tiny data"] == ["streets"]


def test_a_plan_over_its_budget_is_refused() -> None:
    costs = [Cost(1, 1.0, 3000.0, 2**20), Cost(1, 1.0, 4500.0, 1)]
    assert tell_plan(["0_a", "1_b"], costs).splitlines()[-1] == "2 jobs, 2.1 h one after another, checkpoints of 2 MiB at most"
    check_budget(None, costs)
    check_budget(2.1, costs)
    with pytest.raises(
        ConfigError, match=r"^the plan takes 2\.1 h one after another, study\.budget\.hours is 2; .*study\.budget\.hours=3$"
    ):
        check_budget(2.0, costs)


def test_a_budget_is_of_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """35 jobs take 30 h, and of one nothing is known."""
    unknown = Cost(1, None, None, None)
    costs = [*[Cost(1, 1.0, 30 * 3600 / 35, 1)] * 35, unknown]
    with pytest.raises(
        ConfigError, match=r"^the plan takes 30\.0 h one after another, and 1 jobs of unknown time, study\.budget"
    ):
        check_budget(12.0, costs)
    check_budget(30.1, costs)
    check_budget(12.0, [])  # all were finished before
    assert capsys.readouterr() == ("", "")
    check_budget(12.0, [unknown])
    assert capsys.readouterr() == ("", "study.budget.hours=12 was not checked, as no job's time is known\n")


@pytest.mark.parametrize("budget", [12, {"hours": 0}, {"hours": "long"}, {"hours": True}, {"days": 1}, {"hours": 1, "jobs": 2}])
def test_a_budget_of_another_form_is_refused(budget: Any) -> None:
    with pytest.raises(ConfigError, match=r"^study\.budget=.*; allowed is \{hours: NUMBER\}, for all jobs together"):
        budget_of({"budget": budget})
    assert budget_of({"budget": {"hours": 12}}) == 12
    assert budget_of(None) is budget_of({"question": "?"}) is None
