"""AttU_Net: its size, its gates, and how images of any size pass."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.attunet import AttU_Net
from src.models.blocks import Upsampling
from src.models.gates import AttentionGate
from src.models.unet import UNet

CHANNELS = [4, 6, 5, 7]


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def randomize(network: nn.Module, seed: int) -> None:
    """Weights and running statistics as if trained, so that no BatchNorm is the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
                module.running_mean.uniform_(-0.5, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)


def small(cls: type[UNet], upsampling: Upsampling = "transpose", seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    network = cls(3, CHANNELS, upsampling, init="default")
    randomize(network, seed)
    return network.eval()


def set_gates(network: UNet, score: float) -> None:
    """Makes every attention coefficient sigmoid(score), whatever the image."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("gates.") and ".score.1." in name:
                parameter.fill_(score if name.endswith("bias") else 0.0)


def random_image(*size: int, seed: int = 3) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("cls", "upsampling", "expected"),
    [
        (AttU_Net, "transpose", 57_164_813),
        (AttU_Net, "nearest", 34_880_653),
        (UNet, "nearest", 34_529_121),  # LeeJunHyun's U_Net, in which the original's AttU_Net has its control
        (UNet, "transpose", 57_164_813 - 351_532),  # the gates are 351,532
    ],
)
def test_number_of_parameters(cls: type[UNet], upsampling: Upsampling, expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(cls(33, upsampling=upsampling)) == expected


@pytest.mark.parametrize(("num_classes", "expected"), [(1, 57_162_733), (11, 57_163_383)])
def test_number_of_parameters_with_other_classes(num_classes: int, expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(AttU_Net(num_classes)) == expected


@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
@pytest.mark.parametrize("training", [False, True])
def test_open_gates_make_it_the_unet(upsampling: Upsampling, training: bool) -> None:
    gated, control = small(AttU_Net, upsampling), small(UNet, upsampling, seed=1)
    shared = {name: value for name, value in gated.state_dict().items() if not name.startswith("gates.")}
    control.load_state_dict(shared, strict=True)
    image = random_image(2, 3, 19, 26)
    gated.train(training)
    control.train(training)
    with torch.no_grad():
        assert not torch.allclose(gated(image), control(image), atol=1e-3)  # gates as they start do change something
        control.load_state_dict(shared, strict=True)
        gated.load_state_dict(shared, strict=False)
        set_gates(gated, 100.0)
        torch.testing.assert_close(gated(image), control(image), rtol=1e-6, atol=1e-6)


def test_closed_gates_cut_the_skip_connections() -> None:
    """Then only the deepest level speaks: what max-pooling drops of the image no longer matters."""
    network = small(AttU_Net)
    set_gates(network, -200.0)  # below what a fp32 exponential tells from 0
    image = random_image(1, 3, 16, 16)
    features: Tensor = image
    with torch.no_grad():
        features = network.encoder(image)[-1]
        for upsample, merge in zip(network.upsample, network.merge, strict=True):
            signal = upsample(features)
            features = merge(torch.cat([torch.zeros_like(signal), signal], dim=1))
        torch.testing.assert_close(network(image), network.head(features), rtol=1e-6, atol=1e-6)


def test_gate_equals_the_equation() -> None:
    """Equations 1 and 2 of the paper in numpy, with the BatchNorms of the widespread code."""
    torch.manual_seed(0)
    gate = AttentionGate(signal_channels=3, skip_channels=4, hidden_channels=2).eval()
    randomize(gate, 5)
    signal, skip = random_image(2, 3, 5, 6, seed=1), random_image(2, 4, 5, 6, seed=2)

    def project(part: nn.Sequential, x: np.ndarray) -> np.ndarray:
        convolution, norm = part
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert convolution.bias is not None
        weight = convolution.weight.detach().numpy().astype(np.float64)[:, :, 0, 0]
        values = np.einsum("oi,bihw->bohw", weight, x) + convolution.bias.detach().numpy()[:, None, None]
        mean, variance = (np.asarray(norm.state_dict()[f"running_{what}"])[:, None, None] for what in ("mean", "var"))
        scaled = (values - mean) / np.sqrt(variance + norm.eps)
        return scaled * norm.weight.detach().numpy()[:, None, None] + norm.bias.detach().numpy()[:, None, None]

    hidden = project(gate.from_signal, signal.double().numpy()) + project(gate.from_skip, skip.double().numpy())
    attention = 1 / (1 + np.exp(-project(gate.score, np.maximum(hidden, 0))))
    assert attention.std() > 0.01
    with torch.no_grad():
        np.testing.assert_allclose(gate.attend(signal, skip).numpy(), attention, atol=1e-6)
        np.testing.assert_allclose(gate(signal, skip).numpy(), attention * skip.numpy(), atol=1e-5)


def unpadded_logits(network: UNet, image: Tensor) -> Tensor:
    """The forward pass written down again, without padding."""
    gates = network.gates if isinstance(network, AttU_Net) else None
    features = [image]
    for number, level in enumerate(network.encoder.levels):
        features.append(level(features[-1] if number == 0 else F.max_pool2d(features[-1], 2, 2)))
    skips, current = features[1:-1], features[-1]
    for stage in range(len(skips)):
        signal = network.upsample[stage](current)
        skip = skips[len(skips) - 1 - stage]
        if gates is not None:
            skip = gates[stage](signal, skip)
        current = network.merge[stage](torch.cat((skip, signal), 1))
    return network.head(current)


@pytest.mark.parametrize("cls", [AttU_Net, UNet])
@pytest.mark.parametrize("upsampling", ["transpose", "nearest"])
def test_a_multiple_is_not_padded(cls: type[UNet], upsampling: Upsampling) -> None:
    network = small(cls, upsampling)
    assert network.size_multiple == 8
    image = random_image(2, 3, 24, 40)
    with torch.no_grad():
        torch.testing.assert_close(network(image), unpadded_logits(network, image), rtol=0, atol=0)


@pytest.mark.parametrize("cls", [AttU_Net, UNet])
@pytest.mark.parametrize(("size", "padded"), [((21, 30), (24, 32)), ((24, 33), (24, 40)), ((1, 5), (8, 8))])
def test_other_sizes_equal_the_edge_replicated_image(cls: type[UNet], size: tuple[int, int], padded: tuple[int, int]) -> None:
    network = small(cls)
    image = random_image(2, 3, *size)
    bottom, right = padded[0] - size[0], padded[1] - size[1]
    replicated = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge"))
    with torch.no_grad():
        expected = unpadded_logits(network, replicated)[:, :, : size[0], : size[1]]
        torch.testing.assert_close(network(image), expected, rtol=0, atol=0)


def test_in_channels_other_than_three() -> None:
    network = AttU_Net(3, [4, 5], in_channels=1).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 9, 9)).shape == (1, 3, 9, 9)


def test_the_finest_gate_is_one_channel_wide_at_least() -> None:
    network = AttU_Net(3, [1, 2]).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)


def test_torchs_own_initialization_draws_gates_after_the_rest_deepest_first() -> None:
    torch.manual_seed(7)
    network = AttU_Net(3, [4, 8, 16], init="default")
    torch.manual_seed(7)
    UNet(3, [4, 8, 16], init="default")
    for gate, skip in zip(network.gates, (8, 4), strict=True):
        drawn = AttentionGate(skip, skip, skip // 2).state_dict()
        assert all(torch.equal(value, drawn[name]) for name, value in gate.state_dict().items())
