"""Weights start as the formulas say."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.attunet import AttU_Net
from src.models.initialization import Init, initialize

CHANNELS = [32, 64]
RANDOM_INITS: list[Init] = ["normal", "xavier", "kaiming", "orthogonal"]
Convolution = nn.Conv2d | nn.ConvTranspose2d


def build(init: Init, gain: float | None, seed: int = 0) -> AttU_Net:
    torch.manual_seed(seed)
    return AttU_Net(7, CHANNELS, "transpose", init, gain)


def convolutions(network: nn.Module) -> list[tuple[str, Convolution]]:
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, Convolution)]
    assert len(found) == 12  # 4 in the encoder, 2 in the up-convolution, 2 in the merge, 3 in the gate, the head
    return found


def wide(network: nn.Module) -> list[tuple[str, Convolution]]:
    """Those with enough weights to measure a deviation within some percent."""
    found = [(name, module) for name, module in convolutions(network) if module.weight.numel() >= 4096]
    assert any(isinstance(module, nn.ConvTranspose2d) for _, module in found)
    assert len(found) >= 5
    return found


def fans(convolution: Convolution) -> tuple[int, int]:
    """Inputs and outputs that one weight's neighbours connect."""
    area = convolution.kernel_size[0] * convolution.kernel_size[1]
    return convolution.in_channels * area, convolution.out_channels * area


def norm_weights(network: nn.Module) -> Tensor:
    return torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])


@pytest.mark.parametrize("gain", [0.02, 0.7, None])
@pytest.mark.parametrize("init", ["normal", "xavier", "kaiming"])
def test_mean_and_deviation(init: Init, gain: float | None) -> None:
    for name, convolution in wide(build(init, gain)):
        fan_in, fan_out = fans(convolution)
        expected = {
            "normal": 0.02 if gain is None else gain,
            "xavier": (1.0 if gain is None else gain) * math.sqrt(2 / (fan_in + fan_out)),
            "kaiming": math.sqrt(2 / fan_in),  # whatever the gain
        }[init]
        weight = convolution.weight.detach().double()
        assert weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel())), name
        assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel()), name
        within = (weight.abs() < expected).double().mean().item()  # 68.3 % of a normal distribution
        assert within == pytest.approx(0.6827, abs=0.03), name


@pytest.mark.parametrize("gain", [0.02, 0.7, None])
def test_orthogonal_matrices(gain: float | None) -> None:
    scale = 1.0 if gain is None else gain
    for name, convolution in convolutions(build("orthogonal", gain)):
        matrix = convolution.weight.detach().double().flatten(1)
        if matrix.shape[0] > matrix.shape[1]:  # too many rows to be orthogonal to one another: the columns are
            matrix = matrix.T
        expected = scale**2 * torch.eye(matrix.shape[0], dtype=torch.float64)
        torch.testing.assert_close(matrix @ matrix.T, expected, rtol=0, atol=1e-5 * scale**2, msg=name)


@pytest.mark.parametrize("init", RANDOM_INITS)
@pytest.mark.parametrize("gain", [0.02, 0.7, None])
def test_biases_are_zero_and_norm_weights_near_one_whatever_the_gain(init: Init, gain: float | None) -> None:
    network = build(init, gain)
    biases = [m.bias for m in network.modules() if isinstance(m, Convolution | nn.BatchNorm2d)]
    assert len(biases) > 12
    assert all(bias is not None and not bias.any() for bias in biases)
    weights = norm_weights(network).double()
    assert weights.mean().item() == pytest.approx(1.0, abs=5 * 0.02 / math.sqrt(weights.numel()))
    assert weights.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * weights.numel()))


def test_the_gain_scales_and_leaves_norms_alone() -> None:
    small, large = build("normal", 0.02), build("normal", 0.5)
    torch.testing.assert_close(small.head.weight * 25, large.head.weight)
    assert torch.equal(norm_weights(small), norm_weights(large))


def test_kaiming_takes_no_gain() -> None:
    first, second = build("kaiming", None), build("kaiming", 5.0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_default_is_what_torch_does() -> None:
    network, again, other = build("default", 0.02), build("default", None), build("default", 0.02, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert not torch.equal(network.head.weight, other.head.weight)
    for name, convolution in convolutions(network):
        assert convolution.bias is not None
        assert convolution.bias.any(), name
    for name, convolution in wide(network):
        bound = 1 / math.sqrt(fans(convolution)[0])  # torch draws from U(-bound, bound)
        weight = convolution.weight.detach()
        assert bound * 0.98 < weight.abs().max().item() <= bound, name
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
    assert torch.equal(norm_weights(network), torch.ones_like(norm_weights(network)))


def test_default_starts_as_a_bare_torch_layer_of_the_same_seed() -> None:
    network = build("default", 0.02, seed=4)
    torch.manual_seed(4)
    bare = nn.Conv2d(3, CHANNELS[0], 3, padding=1)
    assert torch.equal(convolutions(network)[0][1].weight, bare.weight)


@pytest.mark.parametrize("init", get_args(Init))
def test_one_seed_gives_one_network(init: Init) -> None:
    first, second = build(init, None), build(init, None)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    if init != "default":
        assert not torch.equal(first.head.weight, build(init, None, seed=1).head.weight)


@pytest.mark.parametrize("init", get_args(Init))
def test_every_init_builds_on_meta(init: Init) -> None:
    """As the check of a sweep's points does, for which drawing the weights would take too long."""
    with torch.device("meta"):
        assert AttU_Net(33, init=init, init_gain=None).head.weight.is_meta


def test_layers_without_bias_or_affine_norm_are_taken_too() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False))
    initialize(network, "normal", 0.5)
    assert network[0].bias is None


@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
def test_first_loss_is_that_of_knowing_nothing(upsampling: str) -> None:
    torch.manual_seed(0)
    assert upsampling in ("transpose", "nearest")
    network = AttU_Net(33, [16, 32, 64], upsampling, "normal", 0.02)
    image, truth = torch.randn(2, 3, 40, 48), torch.randint(0, 33, (2, 40, 48))
    with torch.no_grad():
        loss = F.cross_entropy(network(image), truth).item()
    assert loss == pytest.approx(math.log(33), abs=0.05)
