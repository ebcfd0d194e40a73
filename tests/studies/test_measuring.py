"""What one job is measured to cost: against counts of another kind, and against what is really saved."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.build import build, checked_datasets
from src.composing import prepare
from src.config import Config
from src.errors import ConfigError
from src.studies import measuring
from src.studies.devices import take_device
from src.studies.measuring import images_seen, measure_size, seconds_an_image
from src.studies.plan import make_plan


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


def test_an_optimizer_that_cannot_step_here_is_refused(tiny_overrides: list[str]) -> None:
    """What Adam keeps for CUDA graphs, it keeps on CUDA alone."""
    config = composed(tiny_overrides, "optimizer=adam", "optimizer.fused=false", "+optimizer.capturable=true")
    with pytest.raises(ConfigError, match=r"^optimizer=torch\.optim\.Adam: .*capturable=True"):
        make_plan([config], 0.0)
