"""What only a GPU can show; skipped, saying so, where there is none."""

from pathlib import Path

import pytest
import torch

from src.build import Experiment, build
from src.cli import prepare
from src.config import MonitorConfig
from src.errors import NonFiniteLossError
from src.loop import EpochRecord, fit
from src.step import train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.fixture
def cuda_experiment(tiny_overrides: list[str]) -> Experiment:
    _, config = prepare("config", [*tiny_overrides, "device=cuda", "precision=fp32", "model.channels=[8,16,32]"])
    return build(config)


def first_batch(experiment: Experiment) -> tuple[torch.Tensor, torch.Tensor]:
    setup = experiment.setup
    setup.sampler.begin(0)
    images, masks = next(iter(setup.train_loader))
    return setup.normalize(images), masks.cuda()


def test_logits_equal_those_of_the_cpu(cuda_experiment: Experiment) -> None:
    model = cuda_experiment.state.model.eval()
    images, _ = first_batch(cuda_experiment)
    with torch.no_grad():
        on_gpu = model(images).cpu()
        on_cpu = model.cpu()(images.cpu())
    torch.testing.assert_close(on_gpu, on_cpu, atol=1e-4, rtol=1e-4)


def test_a_step_waits_for_nothing(cuda_experiment: Experiment) -> None:
    state, setup = cuda_experiment.state, cuda_experiment.setup
    images, masks = first_batch(cuda_experiment)
    state.model.train()
    train_step(state, setup, images, masks)  # the first one allocates and picks algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(state, setup, images, masks)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_bad_step_changes_no_weight(tiny_overrides: list[str], optimizer: str) -> None:
    _, config = prepare("config", [*tiny_overrides, "device=cuda", f"optimizer={optimizer}", "training.log_every=100"])
    experiment = build(config)
    state, setup = experiment.state, experiment.setup
    images, masks = first_batch(experiment)
    state.model.train()
    train_step(state, setup, images, masks)
    state.step = 1
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    train_step(state, setup, images * float("nan"), masks)
    state.step = 2
    train_step(state, setup, images, masks)  # a later good one changes nothing either
    for name, p in state.model.named_parameters():
        assert torch.equal(p, before[name]), name
    assert state.totals.bad_step.item() == 1


def test_momentum_begins_well_after_a_first_step_that_was_skipped(tiny_overrides: list[str]) -> None:
    """A fused optimizer that skips its first step on the device would go on with momenta that nobody wrote."""
    after: list[dict[str, torch.Tensor]] = []
    for skipped in (True, False):
        words = [*tiny_overrides, "device=cuda", "optimizer=sgd", "optimizer.momentum=0.9", "training.on_nonfinite=skip"]
        experiment = build(prepare("config", words)[1])
        state, setup = experiment.state, experiment.setup
        images, masks = first_batch(experiment)
        state.model.train()
        if skipped:
            train_step(state, setup, images * float("nan"), masks)
        for _ in range(2):
            train_step(state, setup, images, masks)
        after.append({name: parameter.detach().clone() for name, parameter in state.model.named_parameters()})
    assert all(torch.isfinite(value).all() for value in after[0].values())
    for name, value in after[0].items():
        assert torch.allclose(value, after[1][name]), name


def test_the_bad_step_is_named(cuda_experiment: Experiment) -> None:
    state, setup = cuda_experiment.state, cuda_experiment.setup
    records = fit(state, setup, lambda state: state.epoch == 1, log_every=100, monitor=MonitorConfig("val/miou", "max"))
    next(records)
    with torch.no_grad():
        next(state.model.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 2"):
        list(records)


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_half_precision_trains(tiny_overrides: list[str], precision: str, tmp_path: Path) -> None:
    _, config = prepare("config", [*tiny_overrides, "device=cuda", f"precision={precision}", "training.epochs=8"])
    experiment = build(config)
    records = fit(experiment.state, experiment.setup, lambda state: state.epoch == 8, 10, MonitorConfig("val/miou", "max"))
    losses = [record.scores["train/loss"] for record in records if isinstance(record, EpochRecord)]
    assert losses[-1] < losses[0]


def epoch_of(experiment: Experiment) -> list[tuple[torch.Tensor, torch.Tensor]]:
    experiment.setup.sampler.begin(1)
    return [(images.cpu(), masks.cpu()) for images, masks in experiment.setup.train_loader]


def test_samples_on_the_device_are_those_of_the_cpu(tiny_overrides: list[str]) -> None:
    epochs = []
    for cache in ("device", "disk", "auto"):
        _, config = prepare("config", [*tiny_overrides, "device=cuda", f"dataset.cache={cache}", "augmentation=original"])
        experiment = build(config)
        on_device = experiment.train_data.on_device
        assert (on_device is not None) == (cache != "disk")
        if on_device is not None:
            assert on_device.images.is_cuda
        epochs.append(epoch_of(experiment))
    for other in epochs[1:]:
        for (images, masks), (other_images, other_masks) in zip(epochs[0], other, strict=True):
            assert torch.equal(images, other_images)
            assert torch.equal(masks, other_masks)


def test_a_batch_on_the_device_waits_for_nothing(tiny_overrides: list[str]) -> None:
    _, config = prepare("config", [*tiny_overrides, "device=cuda", "dataset.cache=device", "augmentation=original"])
    data = build(config).train_data
    keys = [(0, index) for index in range(4)]
    data.batch(keys)
    torch.cuda.set_sync_debug_mode("error")
    try:
        data.batch(keys)
    finally:
        torch.cuda.set_sync_debug_mode("default")
