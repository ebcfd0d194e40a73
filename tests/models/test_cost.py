"""Multiply-adds, against a count made while each layer computes."""

from collections.abc import Callable
from math import prod

import pytest
import torch
from torch import Tensor, nn

from src.models.attunet import AttU_Net
from src.models.cost import count_gmacs
from src.models.unet import UNet


def count_by_hooks(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Each output value of a convolution costs a product for each weight that leads to it."""
    found = []

    def add(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        values = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        each = layer.out_channels if isinstance(layer, nn.ConvTranspose2d) else layer.in_channels
        found.append(values.numel() * each // layer.groups * prod(layer.kernel_size))

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(add)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *image_size))
    return sum(found)


@pytest.mark.parametrize("network", [UNet, AttU_Net])
@pytest.mark.parametrize("upsampling", ["nearest", "transpose"])
def test_every_product_is_counted_and_nothing_is_changed(network: type[nn.Module], upsampling: str) -> None:
    model = network(5, channels=[4, 6, 8], upsampling=upsampling).train()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()  # a frozen one, as some recipes have
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes, chance = [m.training for m in model.modules()], torch.get_rng_state()
    found = count_gmacs(model, (33, 48))
    assert torch.equal(torch.get_rng_state(), chance)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert found == pytest.approx(count_by_hooks(model, (33, 48)) / 1e9)


@pytest.mark.parametrize("look", [lambda image: image.mean().item(), lambda image: image.numpy().mean()])
def test_a_network_that_looks_at_numbers_is_not_counted(look: Callable[[Tensor], float]) -> None:
    class Looking(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if look(image) > 0 else -image

    model = Looking().train()
    assert torch.equal(model(torch.ones(1, 3, 4, 4)), torch.ones(1, 3, 4, 4))
    assert count_gmacs(model, (4, 4)) is None
    assert model.training
