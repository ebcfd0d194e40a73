"""What a sweep is said to cost, against counts of another kind and against what is really saved."""

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from torch import nn

from src.build import build, checked_datasets
from src.composing import compose_checked, prepare
from src.config import Config
from src.errors import ConfigError
from src.redaction import Redactor
from src.studies import measuring, plan
from src.studies.devices import take_device
from src.studies.measuring import images_seen, measure_size, seconds_an_image
from src.studies.plan import Cost, check_budget, make_plan, tell_plan, threads_of_each
from src.studies.sweep import budget_of
from src.sweeping import check_points


class Pretended:
    device = torch.device("cuda")


def composed(tiny_overrides: list[str], *words: str) -> Config:
    return prepare("config", [*tiny_overrides, *words])[1]


def test_sizes_are_those_of_the_network_and_of_what_is_saved(tiny_overrides: list[str]) -> None:
    """Multiplications are counted anew, layer by layer, on a real network; bytes are those of a state after a step."""
    unet = ["model=unet", "model.channels=[3,5]", "model.upsampling=nearest", "optimizer=adam"]
    for words in (["optimizer.momentum=0.9"], unet):
        config = composed(tiny_overrides, *words)
        experiment = build(config, checked_datasets(config))
        model, counted = experiment.state.model, 0

        def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            nonlocal counted
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            places = output if isinstance(layer, nn.Conv2d) else inputs[0]  # where the whole kernel is applied
            counted += places[0, 0].numel() * layer.weight.numel()

        hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, 24, 32))
        for hook in hooks:
            hook.remove()
        size = measure_size(config)
        assert size.state is not None
        assert size.parameters == sum(p.numel() for p in model.parameters())
        assert size.gmacs == pytest.approx(counted / 1e9)

        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        experiment.state.optimizer.step()
        for expected, kept in (
            (size.weights, model.state_dict()),
            (size.state, [model.state_dict(), experiment.state.optimizer.state_dict()]),
        ):
            torch.save(kept, file := io.BytesIO())
            assert expected < file.tell() < expected + 60_000  # names and the like


def test_images_of_a_job(tiny_overrides: list[str]) -> None:
    """Twelve images to train on in batches of five, five to validate on."""
    words = ["loader.batch_size=5", "training.epochs=4"]
    assert images_seen(composed(tiny_overrides, *words)) == pytest.approx(4 * (10 + 5 / 3))
    assert images_seen(composed(tiny_overrides, *words, "loader.drop_last=false")) == pytest.approx(4 * (12 + 5 / 3))


def test_a_batch_grows_while_its_step_is_short(tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    used: list[int] = []  # threads
    real_step = measuring.train_step

    def step(state: Any, setup: Any, images: torch.Tensor, masks: torch.Tensor) -> None:
        sizes.append(len(images))
        used.append(torch.get_num_threads())
        torch.set_num_threads(1)  # else they wait for each other where others compute too
        real_step(state, setup, images, masks)

    monkeypatch.setattr(measuring, "train_step", step)
    config, threads = (
        composed(tiny_overrides, "loader.batch_size=12", f"threads={torch.get_num_threads() + 1}"),
        torch.get_num_threads(),
    )
    monkeypatch.setattr(measuring, "LONG_STEP", 100)
    assert seconds_an_image(config) > 0
    assert sizes == [2, 2, 8, 8, 12, 12]
    assert used[0] == config.threads
    sizes.clear()
    monkeypatch.setattr(measuring, "LONG_STEP", 0)
    assert seconds_an_image(config) > 0
    assert sizes == [2]
    assert torch.get_num_threads() == threads


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
    tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = composed(tiny_overrides, "~loss.class_weights", "loss._target_=torch.nn.MultiMarginLoss")
    costs = make_plan([broken, composed(tiny_overrides)], 0.0)
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


@pytest.mark.slow  # a process that imports torch
def test_a_gpu_is_measured_in_a_process_of_its_own(tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def here(config: Config) -> float:
        raise AssertionError("measured in this process")

    config = composed(tiny_overrides)
    monkeypatch.setattr(measuring, "choose_compute", lambda *_: Pretended)
    monkeypatch.setattr(measuring, "build", here)
    (cost,) = make_plan([config], 0.0)
    assert cost.seconds


def number_of_gpu(config: Config) -> float:
    return float(os.environ["CUDA_VISIBLE_DEVICES"])


@pytest.mark.slow  # a process that imports torch
def test_a_gpu_that_has_a_job_is_not_measured_on(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(tiny_overrides, "device=auto")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,8")
    monkeypatch.setattr(measuring, "choose_compute", lambda *_: Pretended)
    monkeypatch.setattr(measuring, "seconds_an_image", number_of_gpu)
    with take_device("auto") as job:
        assert job["env"]["CUDA_VISIBLE_DEVICES"] == "7"
        (cost,) = make_plan([config], 0.0)
    assert cost.seconds == pytest.approx(8 * images_seen(config), abs=0.1)
    with take_device("auto") as job:  # none is held for longer than the plan is made
        assert job["env"]["CUDA_VISIBLE_DEVICES"] == "7"


def test_where_every_gpu_has_a_job_no_time_is_measured(
    tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr(measuring, "choose_compute", lambda *_: Pretended)
    with take_device("auto"):
        (cost,) = make_plan([composed(tiny_overrides, "device=auto")], 0.0)
    assert capsys.readouterr() == ("", "time not measured, as every GPU is busy\n")
    assert cost.seconds is None
    assert cost.bytes


def test_an_optimizer_that_cannot_step_here_is_told(tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What Adam keeps for CUDA graphs, it keeps on CUDA alone."""
    config = composed(tiny_overrides, "optimizer=adam", "optimizer.fused=false", "+optimizer.capturable=true")
    (cost,) = make_plan([config], 0.0)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in said] == ["optimizer not measured", "time not measured"]
    assert (cost.bytes, cost.seconds) == (None, None)
    assert cost.parameters
    assert tell_plan(["0_a"], [cost]).endswith("1 jobs, time not known, checkpoints of a size not known")


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
