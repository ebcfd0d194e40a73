"""Training and validation against hand-made cases, torchmetrics and uninterrupted runs."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from src.build import Experiment, build, stretch_schedule
from src.checkpoint import Checkpoints
from src.cli import prepare
from src.config import MonitorConfig
from src.errors import NonFiniteLossError
from src.loop import EpochRecord, StepRecord, evaluate, fit
from src.restore import load_last
from src.setup import Setup
from src.state import TrainState
from src.step import train_step, update_weights

Make = Callable[..., Experiment]
SCHEDULERS = sorted((Path(__file__).parent.parent / "conf" / "scheduler").glob("*.yaml"))
MEASURED = ("time/", "speed/", "memory/")  # tags that no two runs share


@pytest.fixture
def make(tiny_overrides: list[str]) -> Make:
    def make(*extra: str) -> Experiment:
        _, config = prepare("config", [*tiny_overrides, "augmentation=none", *extra])
        return build(config)

    return make


def records(experiment: Experiment, epochs: int, **others: Any) -> Iterator[StepRecord | EpochRecord]:
    settings: dict[str, Any] = {"log_every": 1, "monitor": MonitorConfig("val/miou", "max")} | others
    return fit(experiment.state, experiment.setup, lambda state: state.epoch >= epochs, **settings)


def epoch_records(experiment: Experiment, epochs: int, **others: Any) -> list[EpochRecord]:
    return [record for record in records(experiment, epochs, **others) if isinstance(record, EpochRecord)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[k].nan_to_num(nan=7e7), right[k].nan_to_num(nan=7e7)) for k in left
    )


# --- learning --------------------------------------------------------------------------------------------------------


def test_one_batch_is_learnt_by_heart(make: Make) -> None:
    experiment = make("optimizer=adamw", "optimizer.lr=0.02", "model.init_gain=null", "loader.batch_size=6")
    state, setup = experiment.state, experiment.setup
    images, masks = next(iter(setup.train_loader))
    state.model.train()
    first = setup.loss(state.model(setup.normalize(images)), masks).item()
    for _ in range(60):
        train_step(state, setup, setup.normalize(images), masks)
    logits = state.model(setup.normalize(images))
    counted = masks != setup.ignore_index
    assert setup.loss(logits, masks).item() < 0.15 < 1.5 < first
    assert (logits.argmax(1) == masks)[counted].float().mean() > 0.97


def test_training_loss_falls_from_epoch_to_epoch(make: Make) -> None:
    losses = [record.scores["train/loss"] for record in epoch_records(make(), epochs=4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.2
    assert losses[0] < 1.5 * math.log(11)  # 11 classes, nothing known yet


def test_the_first_training_loss_is_that_of_the_untrained_network_by_hand(make: Make) -> None:
    experiment = make("loader.batch_size=12")
    model, setup = copy.deepcopy(experiment.state.model).train(), experiment.setup
    images = torch.from_numpy(np.stack([image for image, _ in experiment.train_data.samples])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (experiment.train_data.mean, experiment.train_data.std))
    masks = torch.from_numpy(np.stack([mask for _, mask in experiment.train_data.samples])).long()
    log_probabilities = model((images - mean) / std).log_softmax(1)
    counted = masks != 11
    picked = log_probabilities.gather(1, masks.where(counted, 0)[:, None])[:, 0]
    expected = -picked[counted].mean().item()
    (record,) = epoch_records(experiment, epochs=1)
    assert setup.ignore_index == 11
    assert record.scores["train/loss"] == pytest.approx(expected, rel=1e-4)


def test_step_records_count_steps_and_images_and_read_the_loss_when_asked(make: Make) -> None:
    experiment = make("loader.batch_size=5", "loader.drop_last=false")
    seen = list(records(experiment, 2, log_every=2))
    steps = [record for record in seen if isinstance(record, StepRecord)]
    assert [(r.epoch, r.step, r.num_steps, r.images) for r in steps] == [
        *((1, 1, 3, 5), (1, 2, 3, 10), (1, 3, 3, 12)),
        *((2, 1, 3, 5), (2, 2, 3, 10), (2, 3, 3, 12)),
    ]
    assert [r.loss is None for r in steps] == [True, False, False] * 2
    epochs = [record for record in seen if isinstance(record, EpochRecord)]
    assert [record.epoch for record in epochs] == [1, 2]
    assert [seen.index(record) for record in epochs] == [3, 7]  # an epoch's record follows its steps
    assert [steps[2].loss, steps[5].loss] == pytest.approx([record.scores["train/loss"] for record in epochs])


def test_drop_last_leaves_the_short_batch_out(make: Make) -> None:
    steps = [r for r in records(make("loader.batch_size=5", "loader.drop_last=true"), 1) if isinstance(r, StepRecord)]
    assert [(r.step, r.num_steps, r.images) for r in steps] == [(1, 2, 5), (2, 2, 10)]


# --- validation ------------------------------------------------------------------------------------------------------


def test_evaluate_leaves_weights_buffers_and_optimizer_as_they_were(make: Make) -> None:
    experiment = make("optimizer=adam")
    for record in records(experiment, 1):
        if isinstance(record, StepRecord):
            break
    state = experiment.state
    state.model.train()
    before, optimizer_before = copy.deepcopy(state.model.state_dict()), copy.deepcopy(state.optimizer.state_dict())
    assert any("running_mean" in key for key in before)
    evaluate(state.model, experiment.setup)
    after = state.model.state_dict()
    assert same(before, after)
    moments = [(v, state.optimizer.state_dict()["state"][k]) for k, v in optimizer_before["state"].items()]
    assert moments
    assert all(torch.equal(old[name], new[name]) for old, new in moments for name in old)


def test_training_goes_on_in_training_mode_after_validation(make: Make) -> None:
    experiment = make()
    buffers = [copy.deepcopy(experiment.state.model.state_dict()) for _ in epoch_records_lazily(experiment, 2)]
    key = next(key for key in buffers[0] if key.endswith("running_mean"))
    assert not torch.equal(buffers[0][key], buffers[1][key])


def epoch_records_lazily(experiment: Experiment, epochs: int) -> Iterator[EpochRecord]:
    return (record for record in records(experiment, epochs) if isinstance(record, EpochRecord))


def vary_void(data: Path) -> None:
    """Gives each validation image another share of void, and two images a class that no other has."""
    for number, file in enumerate(sorted((data / "valannot").glob("*.png"))):
        mask = np.array(Image.open(file))
        mask[: 4 * number] = 11
        mask[-4:-2, : 4 + number] = 5 if number < 2 else 9
        Image.fromarray(mask).save(file)


def test_scores_are_those_of_torchmetrics_on_predictions_made_one_by_one(make: Make, tiny_data: Path) -> None:
    vary_void(tiny_data)
    experiment = make("model.init_gain=null", "optimizer=adamw", "optimizer.lr=0.01", "loader.batch_size=3", "precision=fp32")
    record = epoch_records(experiment, epochs=3)[-1]
    model, mean, std = experiment.state.model.eval(), experiment.val_data.mean, experiment.val_data.std
    predicted, truth = [], []
    with torch.no_grad():
        for image, mask in experiment.val_data.samples:
            pixels = (torch.from_numpy(image / 255.0) - torch.tensor(mean)) / torch.tensor(std)
            predicted.append(model(pixels.permute(2, 0, 1)[None].float()).argmax(1).flatten())
            truth.append(torch.from_numpy(mask.astype(np.int64)).flatten())
    predictions, truths = torch.cat(predicted), torch.cat(truth)
    predictions, truths = predictions[truths != 11], truths[truths != 11]
    iou = multiclass_jaccard_index(predictions, truths, num_classes=11, average="none")
    recall = multiclass_accuracy(predictions, truths, num_classes=11, average="none")
    present = sorted(set(truths.tolist()))
    names = experiment.setup.class_names
    assert len(set(predictions.tolist())) > 1  # else the comparison says little
    assert record.scores["val/miou"] == pytest.approx(iou[present].mean().item(), abs=1e-6)
    assert record.scores["val/class_accuracy"] == pytest.approx(recall[present].mean().item(), abs=1e-6)
    assert record.scores["val/pixel_accuracy"] == pytest.approx((predictions == truths).float().mean().item(), abs=1e-6)
    for index, name in enumerate(names):
        score = record.scores[f"val/iou/{name}"]
        assert score == pytest.approx(iou[index].item(), abs=1e-6) if index in present else math.isnan(score)
    assert record.absent == tuple(name for index, name in enumerate(names) if index not in present)
    assert record.confusion.sum() == len(truths)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_changes_no_validation_score(make: Make, tiny_data: Path, batch_size: int) -> None:
    vary_void(tiny_data)
    experiment = make("model.init_gain=null", "loader.batch_size=5")
    other = make("model.init_gain=null", f"loader.batch_size={batch_size}", "training.epochs=1")
    for _ in records(experiment, 1):
        pass
    whole, parts = (evaluate(experiment.state.model, setup) for setup in (experiment.setup, other.setup))
    assert np.array_equal(whole.confusion, parts.confusion)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_changes_no_validation_loss(make: Make, tiny_data: Path, batch_size: int) -> None:
    vary_void(tiny_data)
    experiment = make("model.init_gain=null", "loader.batch_size=5")
    for _ in records(experiment, 1):
        pass
    other = make("model.init_gain=null", f"loader.batch_size={batch_size}")
    whole, parts = (evaluate(experiment.state.model, setup) for setup in (experiment.setup, other.setup))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


# --- steps that go wrong ---------------------------------------------------------------------------------------------


class FaultyLoss(nn.Module):
    """The wrapped loss, but for the `at`-th time, to the `until`-th, that it is asked for the gradient."""

    def __init__(self, loss: nn.Module, at: int, fault: str, until: int = 0) -> None:
        super().__init__()
        self.loss, self.faults, self.fault, self.calls = loss, range(at, max(at, until) + 1), fault, 0

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        loss = self.loss(logits, masks)
        self.calls += torch.is_grad_enabled()
        if self.calls not in self.faults or not torch.is_grad_enabled():
            return loss
        if self.fault == "gradient":  # finite itself, d sqrt(0) / dx is not
            return loss + 0.0 * torch.sqrt(logits - logits.detach()).sum()
        return loss * float(self.fault)


@pytest.mark.parametrize(("fault", "log_every"), [("nan", 1), ("nan", 2), ("nan", 100), ("inf", 2), ("gradient", 100)])
def test_a_bad_step_is_named_and_changes_no_weight(make: Make, fault: str, log_every: int) -> None:
    experiment = make("optimizer.momentum=0.9")
    bad: Setup = dataclasses.replace(experiment.setup, loss=FaultyLoss(experiment.setup.loss, at=5, fault=fault))
    experiment = dataclasses.replace(experiment, setup=bad)
    kept: dict[tuple[int, int], dict[str, Tensor]] = {}

    def train_to_the_end() -> None:
        for record in records(experiment, 3, log_every=log_every):
            if isinstance(record, StepRecord):
                kept[record.epoch, record.step] = weights(experiment.state.model)

    with pytest.raises(NonFiniteLossError, match=r"epoch 2, step 2\b"):  # three steps an epoch, so the fifth
        train_to_the_end()
    assert same(weights(experiment.state.model), kept[2, 1])
    assert not same(kept[2, 1], kept[1, 3])


def whole(state: TrainState) -> dict[str, Tensor]:
    """Every parameter, buffer and momentum."""
    momenta = {f"momentum {i}": s["momentum_buffer"] for i, s in state.optimizer.state_dict()["state"].items()}
    return {name: tensor.clone() for name, tensor in (state.model.state_dict() | momenta).items()}


@pytest.mark.parametrize("fault", ["nan", "gradient"])
def test_a_bad_step_can_be_skipped(make: Make, fault: str) -> None:
    experiment = make("optimizer.momentum=0.9", "training.on_nonfinite=skip")
    bad: Setup = dataclasses.replace(experiment.setup, loss=FaultyLoss(experiment.setup.loss, at=5, fault=fault))
    kept: dict[tuple[int, int], dict[str, Tensor]] = {}
    losses: dict[tuple[int, int], float] = {}
    scores = []
    for record in records(dataclasses.replace(experiment, setup=bad), 3, log_every=1):
        if isinstance(record, StepRecord):
            kept[record.epoch, record.step] = whole(experiment.state)
            assert record.loss is not None
            losses[record.epoch, record.step] = record.loss
        else:
            scores.append(record.scores)
    assert same(kept[2, 1], kept[2, 2])  # weights, BatchNorm's statistics and momenta: nothing moved
    assert not same(kept[2, 2], kept[2, 3])
    assert losses[2, 2] == losses[2, 1]
    assert [score["train/skipped_steps"] for score in scores] == [0, 1, 0]
    assert all(math.isfinite(value) for score in scores for tag, value in score.items() if tag.startswith("train/"))
    pixels = {score["train/pixel_accuracy"] for score in scores}
    assert all(0 <= share <= 1 for share in pixels)


def test_too_many_bad_steps_in_a_row_end_the_run(make: Make) -> None:
    experiment = make("training.on_nonfinite=skip", "training.max_skipped=2")
    bad = dataclasses.replace(experiment.setup, loss=FaultyLoss(experiment.setup.loss, at=3, fault="nan", until=5))
    iterator = records(dataclasses.replace(experiment, setup=bad), 3, log_every=1)
    next(iterator)
    next(iterator)
    before = weights(experiment.state.model)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2, step 2\b.*3 steps in a row"):  # steps 3, 4 and 5, across epochs
        list(iterator)
    assert same(weights(experiment.state.model), before)


@pytest.mark.parametrize(
    ("words", "end"), [([], "epoch 2, step 3:"), (["training.on_nonfinite=skip"], "epoch 3, step 3:.*4 steps")]
)
def test_a_gradient_that_no_scale_makes_finite_ends_the_run(make: Make, words: list[str], end: str) -> None:
    experiment = make("training.max_skipped=3", *words)
    experiment.state.scaler = GradScaler("cpu", init_scale=2.0**-10)  # as of fp16, which is for CUDA alone
    bad = dataclasses.replace(experiment.setup, loss=FaultyLoss(experiment.setup.loss, at=1, fault="gradient", until=100))
    before = weights(experiment.state.model)
    with pytest.raises(NonFiniteLossError, match=end):  # the sixth step is the first one below 2**-14
        list(records(dataclasses.replace(experiment, setup=bad), 12))
    assert same(weights(experiment.state.model), before)


def test_an_overflow_that_a_smaller_scale_cures_is_no_failure(make: Make) -> None:
    experiment = make("optimizer.lr=1e-8")
    experiment.state.scaler = GradScaler("cpu", init_scale=2.0**127)
    steep = dataclasses.replace(experiment.setup, loss=FaultyLoss(experiment.setup.loss, at=1, fault="1e3", until=100))
    before = weights(experiment.state.model)
    list(records(dataclasses.replace(experiment, setup=steep), 6))
    assert 2.0**100 < experiment.state.scaler.get_scale() < 2.0**127
    assert not same(weights(experiment.state.model), before)


def test_an_infinite_learning_rate_ends_the_run_after_its_first_step(make: Make) -> None:
    experiment = make("optimizer.lr=1e38")
    iterator = records(experiment, 1)
    next(iterator)
    after_first = weights(experiment.state.model)
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 2\b.*optimizer\.lr"):
        next(iterator)
    assert same(weights(experiment.state.model), after_first)


def test_a_weight_that_is_not_a_number_is_found_at_the_next_step(make: Make) -> None:
    experiment = make()
    iterator = records(experiment, 1)
    next(iterator)
    parameters = list(experiment.state.model.parameters())
    with torch.no_grad():
        parameters[0][0, 0, 0, 0] = math.nan
    before = weights(experiment.state.model)
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 2\b"):
        list(iterator)
    assert same(weights(experiment.state.model), before)


class Elsewhere(Tensor):
    """A CPU tensor that says it is on another device, so that the branch for such devices runs here."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.device("cuda")


@pytest.mark.parametrize("kind", [Tensor, Elsewhere])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_update_weights_steps_if_all_is_well_and_only_then(make: Make, optimizer: str, kind: type[Tensor]) -> None:
    experiment = make(f"optimizer={optimizer}", *(["optimizer.momentum=0.9"] if optimizer == "sgd" else []))
    state, setup = experiment.state, experiment.setup
    images, masks = next(iter(setup.train_loader))
    state.model.train()
    train_step(state, setup, setup.normalize(images), masks)
    before, moments = weights(state.model), copy.deepcopy(state.optimizer.state_dict()["state"])
    assert moments
    update_weights(state, torch.tensor(False).as_subclass(kind), torch.tensor(True))
    assert same(weights(state.model), before)
    after = state.optimizer.state_dict()["state"]
    assert all(torch.equal(moments[k][name], after[k][name]) for k in moments for name in moments[k])
    update_weights(state, torch.tensor(True).as_subclass(kind), torch.tensor(True))
    assert not same(weights(state.model), before)


# --- a run that was cut ----------------------------------------------------------------------------------------------


def repeatable(record: StepRecord | EpochRecord) -> object:
    if isinstance(record, StepRecord):
        return dataclasses.astuple(record)
    scores = {tag: str(value) for tag, value in record.scores.items() if not tag.startswith(MEASURED)}
    return record.epoch, scores, record.absent, record.confusion.tolist(), record.is_best


# Three steps, an epoch's end, three steps, an epoch's end; the last batch of the short case is smaller.
CUTS = [(0, "full"), (1, "short"), (2, "full"), (2, "short"), (3, "full"), (5, "full"), (7, "short")]


@pytest.mark.parametrize(("cut", "case"), CUTS)
def test_what_is_saved_at_any_record_goes_on_as_if_never_cut(make: Make, tmp_path: Path, cut: int, case: str) -> None:
    batches = ["loader.batch_size=4"] if case == "full" else ["loader.batch_size=5", "loader.drop_last=false"]
    schedule = ["scheduler=cosine", "scheduler.warmup_epochs=1", "training.epochs=2"]
    overrides = ["augmentation=flip", "optimizer=adamw", *schedule, *batches]
    whole, first, second = make(*overrides), make(*overrides), make(*overrides)
    expected = [repeatable(record) for record in records(whole, 2, log_every=2)]
    assert len(expected) == 8
    seen = []
    for record in records(first, 2, log_every=2):
        seen.append(repeatable(record))
        if len(seen) == cut + 1:
            break
    (tmp_path / "checkpoints").mkdir()
    with Checkpoints(tmp_path / "checkpoints", None, 1) as checkpoints:
        checkpoints.save_last(first.state)
    torch.manual_seed(12345)  # whatever another process drew
    load_last(tmp_path / "checkpoints", second.state)
    seen += [repeatable(record) for record in records(second, 2, log_every=2)]
    assert seen == expected
    assert same(second.state.model.state_dict(), whole.state.model.state_dict())
    assert (second.state.best_score, second.state.best_epoch) == (whole.state.best_score, whole.state.best_epoch)


@pytest.mark.parametrize("scheduler", ["cosine", "poly", "step"])
def test_a_run_given_more_epochs_follows_the_longer_schedule(
    make: Make, tiny_overrides: list[str], tmp_path: Path, scheduler: str
) -> None:
    words = [f"scheduler={scheduler}", *(["scheduler.step_size=3"] if scheduler == "step" else []), "optimizer.lr=0.1"]
    first, second = make(*words, "training.epochs=2"), make(*words, "training.epochs=4")
    _, longer = prepare("config", [*tiny_overrides, *words, "training.epochs=4"])
    epoch_records(first, 2)
    (tmp_path / "checkpoints").mkdir()
    with Checkpoints(tmp_path / "checkpoints", None, 1) as checkpoints:
        checkpoints.save_last(first.state)
    load_last(tmp_path / "checkpoints", second.state)
    stretch_schedule(longer, second.state)
    rates = [record.scores["lr"] for record in epoch_records(second, 4)]
    assert rates == pytest.approx([0.1 * SHAPES[scheduler](epoch, 4, 3) for epoch in (2, 3)])


# --- the learning rate -----------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[int, int, int], float]] = {  # (epoch from 0, epochs, step_size): share of the learning rate
    "constant": lambda epoch, epochs, step: 1.0,
    "cosine": lambda epoch, epochs, step: (1 + math.cos(math.pi * epoch / epochs)) / 2,
    "cosine_warmup": lambda epoch, epochs, step: (1 + math.cos(math.pi * epoch / epochs)) / 2,
    "plateau": lambda epoch, epochs, step: 1.0,  # patience is longer than these runs; see test_schedules.py
    "poly": lambda epoch, epochs, step: (1 - epoch / epochs) ** 0.9,
    "step": lambda epoch, epochs, step: 0.1 ** (epoch // step),
}


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("scheduler", [file.stem for file in SCHEDULERS])
def test_the_lr_tag_follows_the_schedule(make: Make, scheduler: str, warmup: int) -> None:
    assert scheduler in SHAPES, "a new schedule needs its formula here"
    words = ["scheduler.step_size=2"] if scheduler == "step" else []
    experiment = make(f"scheduler={scheduler}", f"scheduler.warmup_epochs={warmup}", "training.epochs=5", *words)
    rates = [record.scores["lr"] for record in epoch_records(experiment, 5)]
    rise = [min(1.0, (epoch + 1) / (warmup + 1)) for epoch in range(5)]
    expected = [0.1 * SHAPES[scheduler](epoch, 5, 2) * rise[epoch] for epoch in range(5)]
    assert rates == pytest.approx(expected)


# --- the best epoch --------------------------------------------------------------------------------------------------

NAN = math.nan


@pytest.mark.parametrize(
    ("mode", "scores", "best", "best_epoch"),
    [
        ("max", [0.1, 0.3, 0.2], [True, True, False], 2),
        ("max", [0.3, 0.3, 0.3], [True, False, False], 1),
        ("min", [0.3, 0.1, 0.2], [True, True, False], 2),
        ("min", [0.1, 0.1], [True, False], 1),
        ("max", [NAN, 0.1, NAN, 0.2], [False, True, False, True], 4),
        ("min", [NAN, 0.1, NAN, 0.2], [False, True, False, False], 2),
        ("max", [NAN, NAN], [False, False], 0),
        ("max", [-0.5, -0.7], [True, False], 1),
        ("max", [0.0, 0.0], [True, False], 1),
    ],
)
def test_best_is_the_first_of_the_best_and_never_nan(
    make: Make, mode: str, scores: list[float], best: list[bool], best_epoch: int
) -> None:
    state = make().state
    noted = []
    for epoch, score in enumerate(scores, start=1):
        state.epoch = epoch
        noted.append(state.note_score(score, mode))
    assert noted == best
    assert state.best_epoch == best_epoch
    assert str(state.best_score) == str(scores[best_epoch - 1] if best_epoch else NAN)


def test_the_monitored_tag_and_its_mode_decide_what_is_best(make: Make) -> None:
    seen = epoch_records(make(), 3, monitor=MonitorConfig("train/loss", "max"))
    losses = [record.scores["train/loss"] for record in seen]
    assert losses == sorted(losses, reverse=True)
    assert [record.is_best for record in seen] == [True, False, False]
    assert [record.is_best for record in epoch_records(make(), 3, monitor=MonitorConfig("train/loss", "min"))] == [True] * 3
