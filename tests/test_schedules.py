"""Every schedule of torch, with and without a warm-up, against torch's own values."""

import dataclasses
import inspect
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, LRScheduler

from src.build import build, build_scheduler
from src.checkpoint import Checkpoints
from src.cli import prepare
from src.config import Config, MonitorConfig
from src.errors import ConfigError
from src.loop import EpochRecord, fit
from src.schedules import NEEDS_PYTHON, load_schedule, step_schedule
from src.train import begin

LR, EPOCHS = 0.1, 12
SCORES = [0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3, 0.2, 0.1, 0.4, 0.4, 0.4]
ARGUMENTS: dict[str, list[dict[str, Any]]] = {  # a schedule that torch adds needs a line here, or in NEEDS_PYTHON
    "StepLR": [{"step_size": 2, "gamma": 0.5}],
    "MultiStepLR": [{"milestones": [1, 4], "gamma": 0.5}],
    "ConstantLR": [{"factor": 0.5, "total_iters": 4}],
    "LinearLR": [{"start_factor": 0.25, "total_iters": 6}],
    "ExponentialLR": [{"gamma": 0.9}],
    "PolynomialLR": [{"total_iters": EPOCHS, "power": 0.9}],
    "CosineAnnealingLR": [{"T_max": EPOCHS}, {"T_max": 5, "eta_min": 0.02}],
    "CosineAnnealingWarmRestarts": [{"T_0": 4}, {"T_0": 2, "T_mult": 2, "eta_min": 0.01}],
    "CyclicLR": [
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3},
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 2, "mode": "exp_range", "gamma": 0.9, "cycle_momentum": False},
    ],
    "OneCycleLR": [{"max_lr": 0.3, "total_steps": EPOCHS}, {"max_lr": 0.3, "total_steps": EPOCHS, "three_phase": True}],
    "ReduceLROnPlateau": [
        {"factor": 0.5, "patience": 1, "mode": "max"},
        {"factor": 0.5, "patience": 0, "cooldown": 1, "mode": "max"},
    ],
}
CASES = [(name, arguments) for name, several in ARGUMENTS.items() for arguments in several]


@pytest.fixture
def config(tiny_overrides: list[str]) -> Config:
    return prepare("config", tiny_overrides)[1]


def optimizer_of() -> Optimizer:
    return SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)


def with_schedule(config: Config, name: str, warmup: int, arguments: dict[str, Any]) -> Config:
    node = {"_target_": f"torch.optim.lr_scheduler.{name}", "warmup_epochs": warmup, **arguments}
    return dataclasses.replace(config, scheduler=node)


def rates_of(optimizer: Optimizer, step: Callable[[float], object], scores: list[float]) -> list[tuple[float, float]]:
    """Learning rate and momentum of each epoch."""
    seen = []
    for score in scores:
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        step(score)
    return seen


def alone(name: str, arguments: dict[str, Any]) -> list[tuple[float, float]]:
    """What torch's own class gives."""
    optimizer = optimizer_of()
    scheduler = getattr(lr_scheduler, name)(optimizer, **arguments)
    follows = name == "ReduceLROnPlateau"
    return rates_of(optimizer, lambda score: scheduler.step(score) if follows else scheduler.step(), SCORES)


def test_every_schedule_of_torch_is_listed() -> None:
    classes = {name for name, cls in vars(lr_scheduler).items() if inspect.isclass(cls) and issubclass(cls, LRScheduler)}
    assert classes - {"LRScheduler", "_LRScheduler"} == ARGUMENTS.keys() | {cls.__name__ for cls in NEEDS_PYTHON}


@pytest.mark.parametrize("warmup", [0, 1, 2, 5, 20])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_a_warmup_multiplies_what_the_schedule_alone_gives(
    config: Config, name: str, arguments: dict[str, Any], warmup: int
) -> None:
    optimizer = optimizer_of()
    scheduler = build_scheduler(with_schedule(config, name, warmup, arguments), optimizer)
    rises = [min(1.0, (epoch + 1) / (warmup + 1)) for epoch in range(EPOCHS)]
    expected = [(lr * rise, momentum) for (lr, momentum), rise in zip(alone(name, arguments), rises, strict=True)]
    assert rates_of(optimizer, lambda score: step_schedule(scheduler, score), SCORES) == expected
    if not warmup:
        assert type(scheduler) is getattr(lr_scheduler, name)


def test_warm_restarts_with_a_warmup_by_hand(config: Config) -> None:
    optimizer = optimizer_of()
    scheduler = build_scheduler(with_schedule(config, "CosineAnnealingWarmRestarts", 2, {"T_0": 4}), optimizer)
    rates = [lr for lr, _ in rates_of(optimizer, lambda score: step_schedule(scheduler, score), SCORES)]
    cosine = [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5))]
    assert rates[:5] == pytest.approx([cosine[0] / 3, cosine[1] * 2 / 3, cosine[2], cosine[3], 0.1])
    assert rates[:3] == pytest.approx([0.0333, 0.0569, 0.05], abs=5e-5)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_a_saved_schedule_continues(config: Config, name: str, arguments: dict[str, Any], warmup: int) -> None:
    """After each epoch, so in the middle of the warm-up too."""
    configured = with_schedule(config, name, warmup, arguments)
    optimizer = optimizer_of()
    scheduler = build_scheduler(configured, optimizer)
    expected = rates_of(optimizer, lambda score: step_schedule(scheduler, score), SCORES)
    for cut in range(1, 6):
        first = optimizer_of()
        schedule = build_scheduler(configured, first)
        rates_of(first, lambda score, schedule=schedule: step_schedule(schedule, score), SCORES[:cut])
        file = io.BytesIO()
        torch.save([first.state_dict(), schedule.state_dict()], file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        second = optimizer_of()
        schedule = build_scheduler(configured, second)
        second.load_state_dict(saved[0])
        load_schedule(schedule, saved[1])
        rest = rates_of(second, lambda score, schedule=schedule: step_schedule(schedule, score), SCORES[cut:])
        assert rest == expected[cut:]


def chained(optimizer: Optimizer, name: str, warmup: int, arguments: dict[str, Any]) -> ChainedScheduler:
    """As versions before made every schedule."""
    parts = [getattr(lr_scheduler, name)(optimizer, **arguments)]
    if warmup:
        parts.append(LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup))
    return ChainedScheduler(parts, optimizer)


@pytest.mark.parametrize("scheduler", ["constant", "cosine", "cosine_warmup", "poly", "step"])
def test_the_schedules_of_conf_give_the_rates_that_they_always_gave(tiny_overrides: list[str], scheduler: str) -> None:
    """To the last bit, over 50 epochs."""
    _, config = prepare("config", [*tiny_overrides, f"scheduler={scheduler}", "training.epochs=50"])
    node = dict(config.scheduler)
    warmup, name = node.pop("warmup_epochs"), node.pop("_target_").rpartition(".")[2]
    before, now = optimizer_of(), optimizer_of()
    old, new = chained(before, name, warmup, node), build_scheduler(config, now)
    assert rates_of(now, lambda _: new.step(), [0.0] * 50) == rates_of(before, lambda _: old.step(), [0.0] * 50)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", ["CosineAnnealingLR", "CyclicLR"])
def test_a_run_that_an_older_version_saved_is_resumed(tiny_overrides: list[str], tmp_path: Path, name: str, warmup: int) -> None:
    """Its checkpoint holds a ChainedScheduler, and the rate of that one."""
    arguments = ARGUMENTS[name][0]
    _, config = prepare("config", [*tiny_overrides, "optimizer.momentum=0.9", f"training.epochs={EPOCHS}"])
    config = with_schedule(config, name, warmup, arguments)
    state = build(config).state
    optimizer = optimizer_of()
    old = chained(optimizer, name, warmup, arguments)
    rates_of(optimizer, lambda _: old.step(), SCORES[:2])
    state.epoch = 2
    state.scheduler = old
    for key in ("lr", "momentum"):
        state.optimizer.param_groups[0][key] = optimizer.param_groups[0][key]
    (tmp_path / "checkpoints").mkdir()
    with Checkpoints(tmp_path / "checkpoints", None, 1) as checkpoints:
        checkpoints.save_last(state)
    resumed = build(config).state
    begin(config, resumed, str(tmp_path / "checkpoints"))
    rises = [min(1.0, (epoch + 1) / (warmup + 1)) for epoch in range(EPOCHS)]
    expected = [(lr * rise, momentum) for (lr, momentum), rise in zip(alone(name, arguments), rises, strict=True)][2:]
    assert rates_of(resumed.optimizer, lambda score: step_schedule(resumed.scheduler, score), SCORES[2:]) == expected


@pytest.mark.parametrize("cls", NEEDS_PYTHON)
def test_a_schedule_that_needs_python_is_refused(config: Config, cls: type) -> None:
    with pytest.raises(ConfigError, match=rf"^scheduler=torch\.optim\.lr_scheduler\.{cls.__name__}: it is built from "):
        build(with_schedule(config, cls.__name__, 0, {}))


@pytest.mark.parametrize(("words", "better"), [(["val/miou", "max"], max), (["val/loss", "min"], min)], ids=["max", "min"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_plateau_follows_the_monitored_score(
    tiny_overrides: list[str], words: list[str], better: Callable[..., float], warmup: int
) -> None:
    tag, mode = words
    more = ["scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "+scheduler.threshold=0.0", "optimizer.lr=2.0"]
    more += [f"monitor.tag={tag}", f"monitor.mode={mode}", f"scheduler.warmup_epochs={warmup}", "training.epochs=8"]
    _, config = prepare("config", [*tiny_overrides, *more])
    experiment = build(config)
    monitor = MonitorConfig(tag, mode)
    fitted = fit(experiment.state, experiment.setup, lambda state: state.epoch >= 8, 100, monitor)
    records = [record for record in fitted if isinstance(record, EpochRecord)]
    expected, rate, best = [], 2.0, None
    for epoch, record in enumerate(records):
        expected.append(rate * min(1.0, (epoch + 1) / (warmup + 1)))
        score = record.scores[tag]
        if best is None or (score != best and better(score, best) == score):
            best = score
        else:
            rate /= 2
    assert [record.scores["lr"] for record in records] == expected
    assert 2.0 / 2**7 < rate < 2.0  # some epochs were better, some were not


def test_the_mode_of_a_plateau_is_that_of_the_monitored_score(config: Config) -> None:
    for given in ({}, {"mode": "max"}):
        scheduler = build_scheduler(with_schedule(config, "ReduceLROnPlateau", 0, given), optimizer_of())
        assert scheduler.mode == config.monitor.mode == "max"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"^scheduler\.mode=min: max is better for monitor\.tag=val/miou"):
        build_scheduler(with_schedule(config, "ReduceLROnPlateau", 0, {"mode": "min"}), optimizer_of())
