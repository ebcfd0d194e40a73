"""What a step adds to the epoch's sums."""

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from src.build import Experiment, build
from src.cli import prepare
from src.config import MonitorConfig
from src.loop import EpochRecord, evaluate, fit
from src.state import NEVER
from src.step import train_step

STILL = ["augmentation=none", "precision=fp32", "optimizer.lr=1e-30"]  # the weights stay what they are
TORCHS = ["~loss.class_weights", "loss._target_=torch.nn.CrossEntropyLoss"]


def make(words: list[str]) -> Experiment:
    return build(prepare("config", words)[1])


def epoch_scores(experiment: Experiment) -> dict[str, float]:
    records = fit(experiment.state, experiment.setup, lambda state: state.epoch >= 1, 1, MonitorConfig("val/miou", "max"))
    (record,) = (record for record in records if isinstance(record, EpochRecord))
    return record.scores


def rewrite_masks(folder: Path, void_rows: int) -> None:
    """Image n has n * `void_rows` more rows of void than image 0, up to void alone."""
    for number, file in enumerate(sorted(folder.glob("*.png"))):
        mask = np.array(Image.open(file))
        mask[: number * void_rows] = 11
        Image.fromarray(mask).save(file)


def negative_logs(logits: Tensor, masks: Tensor) -> Tensor:
    """-log p of the ground truth of each labelled pixel."""
    counted = masks != 11
    picked = logits.double().log_softmax(1).gather(1, masks.long().where(counted, 0)[:, None])[:, 0]
    return -picked[counted]


@pytest.mark.parametrize("words", [[], TORCHS], ids=["ours", "torch's"])
def test_losses_are_means_over_the_labelled_pixels_of_an_epoch(
    tiny_overrides: list[str], tiny_data: Path, words: list[str]
) -> None:
    """One training image and one validation image are void alone; the last batch is short."""
    rewrite_masks(tiny_data / "trainannot", void_rows=2)
    rewrite_masks(tiny_data / "valannot", void_rows=6)
    experiment = make([*tiny_overrides, *STILL, "loader.batch_size=5", "loader.drop_last=false", *words])
    setup, model = experiment.setup, copy.deepcopy(experiment.state.model)
    scores = epoch_scores(experiment)
    with torch.no_grad():
        setup.sampler.begin(0)
        trained = [negative_logs(model.train()(setup.normalize(images)), masks) for images, masks in setup.train_loader]
        model = experiment.state.model.eval()
        validated = [negative_logs(model(setup.normalize(images)), masks) for images, masks in setup.val_loader]
    assert [sum(map(len, logs)) for logs in (trained, validated)] == [132 * 32, 52 * 32]
    assert scores["train/loss"] == pytest.approx(torch.cat(trained).mean().item(), rel=1e-6)
    assert scores["val/loss"] == pytest.approx(torch.cat(validated).mean().item(), rel=1e-6)


@pytest.mark.parametrize("words", [[], ["loss=balanced_cross_entropy"], TORCHS], ids=["ours", "weighted", "torch's"])
def test_a_batch_of_void_alone_changes_nothing(tiny_overrides: list[str], words: list[str]) -> None:
    experiment = make([*tiny_overrides, "augmentation=none", "optimizer=sgd", "optimizer.weight_decay=0", *words])
    state, setup = experiment.state, experiment.setup
    state.scaler = GradScaler("cpu", init_scale=2.0**16)  # as fp16's, which would make infinity of a large factor
    before = {name: value.clone() for name, value in state.model.named_parameters()}
    images, masks = next(iter(setup.train_loader))
    train_step(state, setup, setup.normalize(images), torch.full_like(masks, 11))
    totals = state.totals
    assert [s.item() for s in (totals.loss, totals.loss_weight, totals.gradient_norm, totals.gradient_steps)] == [0, 0, 0, 1]
    assert (totals.skipped_steps.item(), totals.bad_step.item(), state.scaler.get_scale()) == (0, NEVER, 2.0**16)
    assert all(torch.equal(before[name], value) for name, value in state.model.named_parameters())
    train_step(state, setup, setup.normalize(images), masks)
    assert totals.loss_weight.item() > 0
    assert not all(torch.equal(before[name], value) for name, value in state.model.named_parameters())


def test_a_validation_image_of_void_alone_has_no_say(tiny_overrides: list[str], tiny_data: Path) -> None:
    losses = []
    for last in ("void", "none"):
        file = tiny_data / "valannot" / "frame_004.png"
        if last == "void":
            Image.fromarray(np.full((24, 32), 11, np.uint8)).save(file)
        else:
            file.unlink()
            (tiny_data / "val" / file.name).unlink()
        experiment = make([*tiny_overrides, "augmentation=none", *TORCHS])
        losses.append(evaluate(experiment.state.model, experiment.setup).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def alike(data: Path) -> None:
    """Makes all training images one, so that each step of a network that stays the same has the same gradient."""
    for folder in ("train", "trainannot"):
        first, *others = sorted((data / folder).iterdir())
        for file in others:
            file.write_bytes(first.read_bytes())


def test_a_step_whose_gradient_overflows_is_not_in_the_mean_norm(tiny_overrides: list[str], tiny_data: Path) -> None:
    """The first of three steps, as with fp16 before its scale has been found."""
    alike(tiny_data)
    words = [*tiny_overrides, *STILL]
    expected = epoch_scores(make(words))["train/gradient_norm"]
    experiment = make(words)
    experiment.state.scaler = GradScaler("cpu", init_scale=2.0**10)
    calls = []

    def overflow(gradient: Tensor) -> Tensor:
        calls.append(1)
        return gradient * math.inf if len(calls) == 1 else gradient

    next(experiment.state.model.parameters()).register_hook(overflow)
    scores = epoch_scores(experiment)
    assert (len(calls), experiment.state.scaler.get_scale()) == (3, 2.0**9)
    assert scores["train/gradient_norm"] == pytest.approx(expected, rel=1e-5)


class InfiniteOnce(nn.Module):
    """The wrapped loss plus infinity at the first step; the gradient stays finite."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss, self.steps = loss, 0

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        self.steps += torch.is_grad_enabled()
        return self.loss(logits, masks) + (math.inf if torch.is_grad_enabled() and self.steps == 1 else 0.0)


def test_a_skipped_step_is_in_no_mean(tiny_overrides: list[str], tiny_data: Path) -> None:
    alike(tiny_data)
    words = [*tiny_overrides, *STILL, "training.on_nonfinite=skip"]
    expected, experiment = epoch_scores(make(words)), make(words)
    setup = dataclasses.replace(experiment.setup, loss=InfiniteOnce(experiment.setup.loss))
    scores = epoch_scores(dataclasses.replace(experiment, setup=setup))
    assert (expected["train/skipped_steps"], scores["train/skipped_steps"]) == (0, 1)
    for tag in ("train/loss", "train/gradient_norm", "train/pixel_accuracy"):
        assert scores[tag] == pytest.approx(expected[tag], rel=1e-5), tag


def test_sums_of_an_older_checkpoint_are_means_over_images_and_steps(tiny_overrides: list[str]) -> None:
    """Saved after the last step of an epoch, by a version that summed each batch's mean loss times its images."""
    first = make([*tiny_overrides, *STILL])
    for record in fit(first.state, first.setup, lambda s: s.epoch >= 1, 1, MonitorConfig("val/miou", "max")):
        if record.step == 3:  # type: ignore[union-attr]
            break
    saved = copy.deepcopy(first.state.state_dict())
    for name in ("loss_weight", "gradient_steps"):
        del saved["totals"][name]
    saved["totals"] |= {"loss": torch.tensor(8 * 1.5), "gradient_norm": torch.tensor(2 * 0.25)}
    saved["totals"] |= {"skipped_steps": torch.tensor(1), "skipped_images": torch.tensor(4)}  # of three steps of four images
    second = make([*tiny_overrides, *STILL])
    second.state.load_state_dict(saved)
    scores = epoch_scores(second)
    assert (scores["train/loss"], scores["train/gradient_norm"]) == (1.5, 0.25)
