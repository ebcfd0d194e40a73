"""What is saved at any record goes on bit for bit, whatever the run is made of."""

import itertools
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.amp.grad_scaler import GradScaler

from src.build import Experiment, build
from src.checkpoint import Checkpoints
from src.cli import prepare
from src.config import MonitorConfig
from src.datasets.reader import Cache
from src.loop import EpochRecord, fit
from src.train import begin

MEASURED = ("time/", "speed/", "memory/")  # tags that no two runs share
EPOCHS, RECORDS = 2, 10  # four steps and an epoch's end, twice
OPTIMIZERS, SCHEDULERS = (
    sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml")) for group in ("optimizer", "scheduler")
)
Change = Callable[[Experiment], object]


@pytest.fixture
def check(tiny_overrides: list[str], tmp_path: Path) -> Callable[..., None]:
    """Asserts that a run which is cut after so many records, and goes on in another process, ends like one that was not."""

    def check(cut: int, *words: str, change: Change = lambda _: None) -> None:
        more = ["loader.batch_size=3", "augmentation=crop", "dataset.image_size=[16,24]", f"training.epochs={EPOCHS}", *words]
        _, config = prepare("config", [*tiny_overrides, *more])
        whole, first, second = experiments = [build(config) for _ in range(3)]
        for experiment in experiments:
            change(experiment)
        expected = list(train(whole))
        assert len(expected) == RECORDS
        seen = list(itertools.islice(train(first), cut))
        (tmp_path / "checkpoints").mkdir()
        with Checkpoints(tmp_path / "checkpoints", None, 1) as checkpoints:
            checkpoints.save_last(first.state)
        torch.manual_seed(12345)  # whatever the other process drew
        begin(config, second.state, str(tmp_path / "checkpoints"))
        seen += train(second)
        assert seen == expected
        assert differences(second.state.state_dict(), whole.state.state_dict()) == []

    return check


def train(experiment: Experiment) -> Any:
    """What every record says but for what is measured, as text, since a score may be NaN."""
    for record in fit(
        experiment.state, experiment.setup, lambda state: state.epoch >= EPOCHS, 2, MonitorConfig("val/miou", "max")
    ):
        if isinstance(record, EpochRecord):
            scores = {tag: value for tag, value in record.scores.items() if not tag.startswith(MEASURED)}
            yield repr((record.epoch, scores, record.absent, record.confusion.tolist(), record.is_best))
        else:
            yield repr(record)


def differences(ours: Any, theirs: Any, name: str = "") -> list[str]:
    """Where the two differ in any bit, kind or key."""
    if isinstance(ours, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [name]
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), name
        return [found for key in ours for found in differences(ours[key], theirs[key], f"{name}.{key}")]
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), name
        return [found for n, pair in enumerate(zip(ours, theirs, strict=True)) for found in differences(*pair, f"{name}.{n}")]
    return [] if repr(ours) == repr(theirs) else [name]


def some_slow(values: Iterable[Any], fast: Container[Any]) -> list[Any]:
    """All the values as parameters of a test, of which `make test` takes a few."""
    return [pytest.param(value, marks=[] if value in fast else pytest.mark.slow) for value in values]


PAIRS = list(itertools.product(OPTIMIZERS, SCHEDULERS))
EACH_ONCE = [(OPTIMIZERS[n % len(OPTIMIZERS)], scheduler) for n, scheduler in enumerate(SCHEDULERS)]


@pytest.mark.parametrize("pair", some_slow(PAIRS, EACH_ONCE), ids=lambda pair: "-".join(pair))
def test_every_optimizer_with_every_schedule(check: Callable[..., None], pair: tuple[str, str]) -> None:
    optimizer, scheduler = pair
    cut = 1 + PAIRS.index(pair) % (RECORDS - 1)
    momentum = ["optimizer.momentum=0.9"] if optimizer == "sgd" else []
    step = ["scheduler.step_size=1"] if scheduler == "step" else []
    plateau = ["scheduler.patience=0", "+scheduler.threshold=1.0"] if scheduler == "plateau" else []  # reduces at once
    check(cut, f"optimizer={optimizer}", f"scheduler={scheduler}", *momentum, *step, *plateau)


def test_every_option_is_in_a_fast_one_too() -> None:
    assert {optimizer for optimizer, _ in EACH_ONCE} == set(OPTIMIZERS)
    assert {scheduler for _, scheduler in EACH_ONCE} == set(SCHEDULERS)


@pytest.mark.parametrize("cache", some_slow(get_args(Cache), ("memory", "device", "none")))
def test_every_cache(check: Callable[..., None], cache: str) -> None:
    movable = ["augmentation=flip"] if cache == "device" else []
    check(2, f"dataset.cache={cache}", *movable, "optimizer=adamw")


@pytest.mark.parametrize("case", some_slow([(1, 3), (1, 6), (2, 2), (2, 7)], [(2, 7)]), ids=str)
def test_loader_workers(check: Callable[..., None], case: tuple[int, int]) -> None:
    workers, cut = case
    check(cut, f"loader.num_workers={workers}", "optimizer=adamw")


@pytest.mark.parametrize("cut", some_slow(range(1, RECORDS), (3,)))
def test_a_network_that_draws_random_numbers(check: Callable[..., None], cut: int) -> None:
    def add_dropout(experiment: Experiment) -> None:
        experiment.state.model = nn.Sequential(nn.Dropout2d(0.3), experiment.state.model)

    check(cut, "optimizer=adamw", change=add_dropout)


@pytest.mark.parametrize("cut", some_slow([1, 3, 4, 8], (4,)))
def test_the_scale_of_half_precision(check: Callable[..., None], cut: int) -> None:
    seen = []

    def scale(experiment: Experiment) -> None:
        experiment.state.scaler = GradScaler("cpu", init_scale=1.0, growth_interval=3)  # doubles every third step
        seen.append(experiment.state.scaler)

    check(cut, "optimizer=adamw", change=scale)
    whole, _, second = (scaler.state_dict() for scaler in seen)
    assert whole == second
    assert (whole["scale"], whole["_growth_tracker"]) == (4.0, 2)  # of eight steps


def test_with_operations_that_must_be_deterministic(check: Callable[..., None]) -> None:
    check(6, "deterministic=true", "optimizer=sgd")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("cut", [2, 7])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu(check: Callable[..., None], precision: str, cut: int) -> None:
    def add_dropout(experiment: Experiment) -> None:
        experiment.state.model = nn.Sequential(nn.Dropout2d(0.3), experiment.state.model)

    words = ["device=cuda", "deterministic=true", f"precision={precision}", "optimizer=adamw"]
    check(cut, *words, "dataset.cache=device", "augmentation=flip", change=add_dropout)
