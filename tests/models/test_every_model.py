"""What every network of conf/model must do, whatever is in it."""

import importlib
import inspect
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from src.build import build_part
from src.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
MODEL_FILES = sorted((ROOT / "conf" / "model").glob("*.yaml"))
CLASSES = 5

pytestmark = pytest.mark.parametrize("file", MODEL_FILES, ids=lambda file: file.stem)


def build(file: Path, seed: int = 0, **arguments: Any) -> nn.Module:
    """The network of a YAML with these arguments changed, as the command line would; those that it does not take are left out."""
    node = yaml.safe_load(file.read_text())
    node |= {name: value for name, value in arguments.items() if name in taken(file)}
    torch.manual_seed(seed)
    return build_part("model", node, num_classes=CLASSES)


def taken(file: Path) -> set[str]:
    """Names of the arguments of the network."""
    module, _, name = yaml.safe_load(file.read_text())["_target_"].rpartition(".")
    return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def needs(file: Path, *names: str) -> None:
    if lacking := [name for name in names if name not in taken(file)]:
        pytest.skip(f"{file.stem} takes no {' and no '.join(lacking)}")


def random_image(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(7))


def test_the_glob_finds_networks(file: Path) -> None:
    assert len(MODEL_FILES) > 0
    assert file.is_file()


@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
@pytest.mark.parametrize("channels", [[3, 5], [6, 4, 5], [2, 7, 3, 5], [3, 4, 2, 8, 6]], ids=len)
@pytest.mark.parametrize("size", [(32, 48), (45, 61), (1, 1), (17, 16)], ids=str)
def test_logits_have_the_size_of_the_image(file: Path, channels: list[int], upsampling: str, size: tuple[int, int]) -> None:
    network = build(file, channels=channels, upsampling=upsampling).eval()
    with torch.no_grad():
        logits = network(random_image(2, 3, *size))
    assert logits.shape == (2, CLASSES, *size)
    assert bool(torch.isfinite(logits).all())


def test_five_levels_take_camvids_own_size(file: Path) -> None:
    network = build(file, channels=[2, 3, 2, 3, 4]).eval()
    with torch.no_grad():
        assert network(random_image(1, 3, 360, 480)).shape == (1, CLASSES, 360, 480)


@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
def test_gradient_reaches_every_parameter(file: Path, upsampling: str) -> None:
    # In eval mode, where the biases before a BatchNorm are not cancelled by it.
    network = build(file, channels=[16, 12, 10], upsampling=upsampling, init="default").eval()
    (network(random_image(2, 3, 21, 19)) * random_image(2, CLASSES, 21, 19)).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_one_training_step_changes_every_weight_matrix(file: Path) -> None:
    network = build(file, channels=[6, 8, 10], init="default").train()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    nn.functional.cross_entropy(network(random_image(2, 3, 20, 24)), torch.zeros(2, 20, 24, dtype=torch.long)).backward()
    optimizer.step()
    kernels = [name for name, p in before.items() if p.ndim == 4]
    parameters = dict(network.named_parameters())
    assert len(kernels) > 0
    assert [name for name in kernels if torch.equal(parameters[name], before[name])] == []


@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
def test_saving_and_loading_keeps_the_logits(file: Path, upsampling: str) -> None:
    saved, loaded = (build(file, seed, channels=[4, 6, 5], upsampling=upsampling) for seed in (0, 1))
    image = random_image(2, 3, 20, 24)
    saved.train()
    saved(image)  # moves the running statistics away from their start
    buffer = io.BytesIO()
    torch.save(saved.state_dict(), buffer)
    buffer.seek(0)
    saved.eval()
    loaded.eval()
    with torch.no_grad():
        assert not torch.equal(loaded(image), saved(image))
        loaded.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(loaded(image), saved(image))


@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
def test_channels_last_gives_the_same_logits(file: Path, upsampling: str) -> None:
    network = build(file, channels=[4, 6, 5], upsampling=upsampling, init="default").eval()
    image = random_image(2, 3, 23, 26)
    with torch.no_grad():
        expected = network(image)
        untyped: Any = network  # torch's hints for `to` lack memory_format
        actual = untyped.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_the_upsamplings_differ_in_the_transposed_convolutions_alone(file: Path) -> None:
    needs(file, "channels", "upsampling")
    channels = [4, 7, 5]
    counts = {
        upsampling: sum(p.numel() for p in build(file, channels=channels, upsampling=upsampling).parameters())
        for upsampling in ("transpose", "nearest")
    }
    assert counts["transpose"] - counts["nearest"] == sum(c * c * 16 + c for c in channels[1:])


@pytest.mark.parametrize("channels", [[64], [], ["a"], [0, 4], [4, -1], [True, 4], "4"], ids=str)
def test_bad_channels_are_refused(file: Path, channels: Any) -> None:
    needs(file, "channels")
    with pytest.raises(ConfigError, match=r"(?i)channels.*allowed is"):
        build(file, channels=channels)


def test_an_unknown_init_names_those_that_exist(file: Path) -> None:
    needs(file, "init")
    with pytest.raises(ConfigError) as caught:
        build(file, channels=[4, 8], init="he")
    assert "he" in str(caught.value)
    assert all(name in str(caught.value) for name in ("normal", "xavier", "kaiming", "orthogonal", "default"))


def test_an_unknown_upsampling_names_those_that_exist(file: Path) -> None:
    needs(file, "upsampling")
    with pytest.raises(ConfigError) as caught:
        build(file, channels=[4, 8], upsampling="bilinear")
    assert "bilinear" in str(caught.value)
    assert all(name in str(caught.value) for name in ("transpose", "nearest"))


def test_an_argument_that_the_network_does_not_take_is_named(file: Path) -> None:
    if not (own := sorted(taken(file) - {"num_classes"})):
        pytest.skip(f"{file.stem} takes no argument of its own")
    known = own[0]
    node = yaml.safe_load(file.read_text()) | {f"{known}s": 1}
    with pytest.raises(ConfigError, match=rf"model\.{known}s.*did you mean model\.{known}"):
        build_part("model", node, num_classes=CLASSES)


PLAIN_PYTHON = """
import importlib, sys
module, _, name = sys.argv[1].rpartition(".")
network = getattr(importlib.import_module(module), name)
for arguments in (
    {"channels": [64]}, {"channels": ["a", "b"]}, {"channels": [0, 4]}, {"channels": [True, 4]}, {"channels": [4, 8.5]},
    {"channels": [4, 8], "init": "he"}, {"channels": [4, 8], "upsampling": "bilinear"},
):
    try:
        network(num_classes=5, **arguments)
    except ValueError as error:
        print(error)
    else:
        print("ACCEPTED", arguments)
"""


@pytest.mark.slow
def test_without_type_checks_the_constructor_itself_refuses(file: Path) -> None:
    """As a notebook uses the class: no build.py before it and no shape checks of pytest around it."""
    needs(file, "channels", "init", "upsampling")
    target = yaml.safe_load(file.read_text())["_target_"]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_PYTHON, target], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert all("positive whole numbers" in line for line in lines[:5])
    assert all(name in lines[5] for name in ("'he'", "normal", "xavier", "kaiming", "orthogonal", "default"))
    assert all(name in lines[6] for name in ("'bilinear'", "transpose", "nearest"))
