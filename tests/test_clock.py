"""Times of an epoch, by a clock that moves only when it is told to."""

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import src.clock
from src.build import Experiment, build
from src.cli import prepare
from src.config import MonitorConfig
from src.loop import EpochRecord, StepRecord, fit

BATCH, STEP, VALIDATION = 2.0, 3.0, 7.0  # seconds that each takes
IN_BETWEEN = 1000.0  # seconds from the interruption to the resume


class Hands:
    def __init__(self) -> None:
        self.now = 50.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(src.clock, "time", SimpleNamespace(perf_counter=hands.perf_counter))
    return hands


def make(words: list[str], hands: Hands) -> Experiment:
    """Three steps an epoch and two batches of validation."""
    _, config = prepare("config", [*words, "augmentation=none", "dataset.cache=disk"])
    experiment = build(config)
    load = experiment.train_data.batch

    def batch(keys: Any) -> Any:
        hands.now += BATCH
        return load(keys)

    def forward(module: nn.Module, _: Any) -> None:
        hands.now += STEP if module.training else VALIDATION

    experiment.train_data.batch = batch  # type: ignore[method-assign]
    experiment.state.model.register_forward_pre_hook(forward)
    return experiment


def records(experiment: Experiment) -> Iterator[StepRecord | EpochRecord]:
    return fit(experiment.state, experiment.setup, lambda state: state.epoch >= 2, 1, MonitorConfig("val/miou", "max"))


def times(records: Iterator[StepRecord | EpochRecord]) -> list[tuple[float, float, float]]:
    tags = ("time/epoch_seconds", "time/data_wait_share", "speed/images_per_second")
    scores = [record.scores for record in records if isinstance(record, EpochRecord)]
    return [(score[tags[0]], score[tags[1]], score[tags[2]]) for score in scores]


def saved_after(experiment: Experiment, steps: int) -> dict[str, Any]:
    iterator = records(experiment)
    for _ in range(steps):
        next(iterator)
    return copy.deepcopy(experiment.state.state_dict())


WHOLE = (3 * (BATCH + STEP) + 2 * VALIDATION, BATCH / (BATCH + STEP), 12 / (3 * (BATCH + STEP)))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_an_interrupted_epoch_has_the_times_of_a_whole_one(tiny_overrides: list[str], hands: Hands, steps: int) -> None:
    saved = saved_after(make(tiny_overrides, hands), steps)
    hands.now += IN_BETWEEN
    second = make(tiny_overrides, hands)
    second.state.load_state_dict(saved)
    assert times(records(second)) == [pytest.approx(WHOLE), pytest.approx(WHOLE)]
    assert times(records(make(tiny_overrides, hands))) == [pytest.approx(WHOLE), pytest.approx(WHOLE)]


def test_an_older_checkpoint_has_images_without_seconds(tiny_overrides: list[str], hands: Hands) -> None:
    saved = saved_after(make(tiny_overrides, hands), 2)
    for name in ("seconds", "seconds_waited"):
        del saved["totals"][name]
    second = make(tiny_overrides, hands)
    second.state.load_state_dict(saved)
    rest = (BATCH + STEP + 2 * VALIDATION, BATCH / (BATCH + STEP), 4 / (BATCH + STEP))  # one step of four images is left
    assert times(records(second)) == [pytest.approx(rest), pytest.approx(WHOLE)]
