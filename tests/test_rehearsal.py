"""What fails in training is told in one line before the run's folder is made, and the rehearsal leaves no trace."""

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_exact_resume import differences

import src.models
from src import build as building
from src.build import build, check, forget_datasets
from src.cli import prepare
from src.errors import ConfigError
from src.ranks import Ranks
from src.rehearsal import leaving_random_state
from src.seeding import seed_everything
from src.train import train

Attempt = Callable[..., str]

OWN = '''
import torch
from torch import nn


class Plain(nn.Module):
    """A convolution; what it gives is up to its subclasses."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3, padding=1)

    def forward(self, image):
        return self.conv(image)


class Half(Plain):
    def forward(self, image):
        return self.conv(image)[:, :, ::2, ::2]


class Dictionary(Plain):
    def forward(self, image):
        return {"out": self.conv(image)}


class Flat(Plain):
    def forward(self, image):
        return self.conv(image).mean(dim=1)


class OnlyInTraining(Plain):
    def forward(self, image):
        return self.conv(image) if self.training else [self.conv(image)]


class Broken(Plain):
    def forward(self, image):
        return self.conv(image)[0, 0, 0].unfold(0, 999, 1)


class Overwriting(Plain):
    def forward(self, image):
        out = torch.sigmoid(self.conv(image))
        out[:, 0] = 0
        return out


class Softmax(Plain):
    def forward(self, image):
        return self.conv(image).softmax(dim=1)


class Dropping(Plain):
    def forward(self, image):
        return nn.functional.dropout(self.conv(image), training=self.training)


class Lazy(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(num_classes, 3, padding=1)

    def forward(self, image):
        return self.conv(image)


class Numbers(Plain):
    """Cannot be built or run on meta."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.shares = [share.item() for share in torch.linspace(0, 1, 3)]


class Huge(Plain):
    def forward(self, image):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class MeanOverCounted(nn.Module):
    """Cross-entropy, divided by the number of pixels that count: 0 / 0 where none does."""

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def total(self, logits, masks):
        return nn.functional.cross_entropy(logits, masks, ignore_index=self.ignore_index, reduction="sum")

    def forward(self, logits, masks):
        return self.total(logits, masks) / (masks != self.ignore_index).sum()


class NoneCounted(MeanOverCounted):
    def forward(self, logits, masks):
        return self.total(logits, masks) / (masks != self.ignore_index).sum().clamp(min=1)
'''

LOSS = ["~loss.class_weights", "loss._target_=torch.nn."]
PLAIN_SGD = ["~optimizer.momentum", "~optimizer.weight_decay", "~optimizer.nesterov", "~optimizer.fused", "optimizer._target_="]
SCHEDULE = ["~scheduler.T_max", "scheduler._target_=torch.optim.lr_scheduler."]


def with_target(words: list[str], name: str, *more: str) -> list[str]:
    return [*words[:-1], words[-1] + name, *more]


def own_loss(name: str) -> list[str]:
    return ["~loss.class_weights", f"loss._target_=src.models.mine.{name}"]


def own_model(name: str) -> list[str]:
    keys = ("channels", "gate_channels", "upsampling", "init", "init_gain")
    given = ["model=attunet_original", "model.gate_channels=[1]"]  # Hydra deletes no key whose value is null
    return [*given, *(f"~model.{key}" for key in keys), f"model._target_=src.models.mine.{name}"]


MEMBERS: dict[str, tuple[list[str], str]] = {
    "LBFGS": (
        with_target(PLAIN_SGD, "torch.optim.LBFGS"),
        r"optimizer=torch\.optim\.LBFGS: .*closure.*; training gives it no closure; use another optimizer",
    ),
    "SparseAdam": (
        with_target(PLAIN_SGD, "torch.optim.SparseAdam"),
        r"optimizer=torch\.optim\.SparseAdam: .*dense gradients.*consider Adam",
    ),
    "OneCycleLR": (
        with_target(SCHEDULE, "OneCycleLR", "+scheduler.max_lr=0.1", "+scheduler.total_steps=3", "training.epochs=5"),
        r"scheduler=torch\.optim\.lr_scheduler\.OneCycleLR: Tried to step 4 times.*total steps is 3.*end of epoch 4 of 5",
    ),
    "negative rate": (
        ["+scheduler.eta_min=-0.5", "training.epochs=2"],
        r"scheduler=torch\.optim\.lr_scheduler\.CosineAnnealingLR: its learning rate is -0\.\d+ after epoch 1",
    ),
    "CyclicLR": (
        with_target(SCHEDULE, "CyclicLR", "+scheduler.base_lr=0.1", "+scheduler.max_lr=1", "+scheduler.step_size_up=0"),
        r"scheduler: .*division by zero",
    ),
    "MSELoss": (with_target(LOSS, "MSELoss"), r"loss=torch\.nn\.MSELoss: .*size of tensor.*; use src\.losses\.CrossEntropy"),
    "MSELoss that could be broadcast": (
        with_target(LOSS, "MSELoss", "loader.batch_size=11"),
        r"loss=torch\.nn\.MSELoss: .*size of tensor.*; use src\.losses\.CrossEntropy",
    ),
    "BCEWithLogitsLoss": (
        with_target(LOSS, "BCEWithLogitsLoss"),
        r"loss=torch\.nn\.BCEWithLogitsLoss: Target size .*; use src\.losses\.CrossEntropy",
    ),
    "NLLLoss": (
        with_target(LOSS, "NLLLoss"),
        r"loss=torch\.nn\.NLLLoss: falls without bound as logits grow, so it takes log-probabilities.*use src\.losses",
    ),
    "reduction none": (
        with_target(LOSS, "CrossEntropyLoss", "+loss.reduction=none"),
        r"loss\.reduction=none: .*; use mean",
    ),
    "half size": (
        own_model("Half"),
        r"model=src\.models\.mine\.Half: gives \[2, 11, 12, 16\] for 2 images of 24x32; needed is .*\[2, 11, 24, 32\]",
    ),
    "dictionary": (
        own_model("Dictionary"),
        r"model=src\.models\.mine\.Dictionary: gives a dict for 2 images of 24x32; needed is ",
    ),
    "three dimensions": (own_model("Flat"), r"model=src\.models\.mine\.Flat: gives \[2, 24, 32\] for .*\[2, 11, 24, 32\]"),
    "logits only in training": (
        own_model("OnlyInTraining"),
        r"model=src\.models\.mine\.OnlyInTraining: gives a list for 1 image",
    ),
    "backward": (  # in fp32, as the parent of a sweep computes: torch names the type
        [*own_model("Overwriting"), "precision=fp32"],
        r"model=src\.models\.mine\.Overwriting: .*modified by an inplace operation",
    ),
    "lazy": (own_model("Lazy"), r"model=src\.models\.mine\.Lazy: has lazy modules .*; use those that are given their input"),
    "forward": (own_model("Broken"), r"model=src\.models\.mine\.Broken: .*999"),
    "void": (
        own_loss("MeanOverCounted"),
        r"loss=src\.models\.mine\.MeanOverCounted: not finite where all pixels are void \(ignore index 11\).*let it be 0 there",
    ),
    "augmentation": (
        ["augmentation.transforms=[{_target_: albumentations.RandomCrop, height: 64, width: 64}]"],
        r"augmentation: RandomCrop fails on an image of 24x32: ",
    ),
    "batch of one value": (
        ["loader.batch_size=1", "model.channels=[2,2,2,2,2,2]"],
        r"model=src\.models\.attunet\.AttU_Net: a batch of 1 image of 24x32 leaves BatchNorm a single value; use larger",
    ),
}


@pytest.fixture(autouse=True)
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`src.models.mine`, as a file that a person adds."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.py").write_text(OWN)
    monkeypatch.setattr(src.models, "__path__", [*src.models.__path__, str(tmp_path / "own")])
    monkeypatch.chdir(tmp_path)
    forget_datasets()


@pytest.mark.parametrize("member", MEMBERS)
def test_what_would_fail_in_training_leaves_no_folder(tiny_overrides: list[str], tmp_path: Path, member: str) -> None:
    words, message = MEMBERS[member]
    launch, config = prepare("config", [*tiny_overrides, *words])
    with pytest.raises(ConfigError, match=f"^{message}") as told:
        train(config, launch)
    assert len(str(told.value).splitlines()) == 1
    assert not (tmp_path / "outputs").exists()
    with pytest.raises(ConfigError) as from_check:  # as the parent of a sweep
        check(config)
    assert str(from_check.value) == str(told.value)


@pytest.mark.parametrize("words", [own_model("Plain"), own_model("Numbers"), own_loss("NoneCounted"), LOSS], ids=str)
def test_own_parts_that_are_right_train(tiny_overrides: list[str], tmp_path: Path, words: list[str]) -> None:
    words = with_target(LOSS, "CrossEntropyLoss") if words is LOSS else words
    launch, config = prepare("config", [*tiny_overrides, *words])
    check(config)
    assert 0 < train(config, launch) < 1
    assert len(list(tmp_path.glob("outputs/*/*/run.json"))) == 1


def test_a_softmax_at_the_end_is_told_once(tiny_overrides: list[str], caplog: pytest.LogCaptureFixture) -> None:
    for name, told in (("Softmax", 1), ("Plain", 0)):
        caplog.clear()
        _, config = prepare("config", [*tiny_overrides, *own_model(name)])
        with caplog.at_level(logging.WARNING, "src"):
            build(config)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == told
        assert all(line.startswith("model=src.models.mine.Softmax: its outputs sum to 1") for line in lines)


def test_a_rehearsal_that_does_not_fit_into_memory_says_nothing(tiny_overrides: list[str]) -> None:
    """Training says it, with a batch that does."""
    _, config = prepare("config", [*tiny_overrides, *own_model("Huge")])
    experiment = build(config)
    with pytest.raises(torch.OutOfMemoryError):
        experiment.state.model(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("words", [["optimizer=adamw"], ["scheduler=plateau", *own_model("Dropping")]], ids=str)
def test_the_rehearsal_leaves_no_trace(tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    _, config = prepare("config", [*tiny_overrides, "augmentation=crop", "dataset.image_size=[16,24]", *words])

    def built() -> dict[str, Any]:
        experiment = build(config)
        states = {"torch": torch.get_rng_state(), "numpy": repr(np.random.get_state(legacy=False))}
        return {**states, "batches": list(experiment.setup.train_loader), "state": experiment.state.state_dict()}

    rehearsed = built()
    asked: list[object] = []
    monkeypatch.setattr(building, "rehearse_shapes", lambda *given: asked.append(given))
    monkeypatch.setattr(building, "rehearse_on_a_copy", lambda *given: asked.append(given))
    assert differences(rehearsed, built()) == []
    assert len(asked) == 2


def test_what_is_drawn_in_a_rehearsal_is_drawn_again_after_it() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    seed_everything(5)
    with leaving_random_state(torch.device("cpu")):
        first = [draw(), draw()]
    assert [draw(), draw()] == first


def test_points_that_differ_in_nothing_that_matters_are_rehearsed_once(
    tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse, seen = building.rehearse, []
    monkeypatch.setattr(building, "rehearse", lambda *given: (seen.append(given[0].model["init"]), rehearse(*given)))
    for words in (["seed=0"], ["seed=1", "name=other"], ["model.init=normal"], ["model.init=normal", "seed=7"]):
        check(prepare("config", [*tiny_overrides, *words])[1])
    assert seen == ["kaiming", "normal"]


def test_ranks_rehearse_each_alone(tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no process group here: any collective operation would fail."""
    for key, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(Ranks, "connect", lambda *_: None)
    _, config = prepare("config", tiny_overrides)
    assert build(config).setup.ranks.several
    bad = prepare("config", [*tiny_overrides, *own_model("Half")])[1]
    with pytest.raises(ConfigError, match=r"^model=src\.models\.mine\.Half: gives \[2, 11, 12, 16\]"):
        build(bad)
