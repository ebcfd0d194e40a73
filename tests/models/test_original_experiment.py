"""`experiment=original` computes what the original script does; that is written here anew, from its description."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from albumentations.pytorch import ToTensorV2
from conftest import write_split
from original_network import OriginalAttUNet
from PIL import Image
from torch import Tensor, nn

from src.build import Experiment, build, build_model
from src.composing import prepare
from src.models.original_weights import rename_original_weights
from src.step import train_step

NUM_CLASSES = 33
WIDTHS = [64, 128, 256, 512, 1024]
NARROW = [4, 8, 16, 32, 64]
STEPS = 15


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """37 training images, so that the last 5 do not fill a batch of 32, and 3 for validation."""
    for split, number in (("train", 37), ("val", 3)):
        write_split(tmp_path / "data", split, number, (46, 58))
    return tmp_path / "data"


def build_experiment(data: Path, *words: str) -> Experiment:
    _, config = prepare("config", ["experiment=original", f"dataset.root='{data}'", "device=cpu", "dataset.cache=memory", *words])
    return build(config)


def build_original(widths: list[int]) -> nn.Module:
    """The original's network in float64, its weights drawn as pix2pix's init_weights draws them with init_gain 0.02."""
    torch.manual_seed(5)
    network = OriginalAttUNet("transpose", widths, NUM_CLASSES)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    return network.double().train()


def original_step(network: nn.Module, images: Tensor, masks: Tensor) -> None:
    """Cross-entropy averaged over the pixels that are not 255, and plain gradient descent at 0.1."""
    log_probabilities = network(images).log_softmax(dim=1)
    counted = masks != 255
    right = log_probabilities.gather(1, (masks.long() * counted)[:, None])[:, 0]
    loss = -(right * counted).sum() / counted.sum()
    network.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("widths", "steps"), [(NARROW, STEPS), pytest.param(WIDTHS, STEPS, marks=pytest.mark.slow)], ids=["narrow", "whole"]
)
def test_each_step_is_the_originals(data: Path, widths: list[int], steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps in float64 from the same weights and batches: updates and BatchNorm statistics agree to 1e-12."""
    monkeypatch.setattr(Tensor, "float", lambda self: self if self.dtype is torch.float64 else self.to(torch.float32))
    experiment = build_experiment(data, f"model.channels={widths}", "dataset.image_size=[16,32]")
    state, setup, original = experiment.state, experiment.setup, build_original(widths)
    ours = state.model.double().train()
    done = 0
    for epoch in range(steps):
        setup.sampler.begin(epoch)
        for pixels, masks in setup.train_loader:
            assert len(masks) == 32
            images = setup.normalize(pixels).double()
            ours.load_state_dict(rename_original_weights(original.state_dict()))
            before = [p.detach().clone() for p in ours.parameters()]
            original_step(original, images, masks)
            train_step(state, setup, images, masks)
            done += 1
            expected = rename_original_weights(original.state_dict())
            update = norm(expected[name] - old for (name, _), old in zip(ours.named_parameters(), before, strict=True))
            error = norm(expected[name] - p.detach() for name, p in ours.named_parameters())
            assert update > 1e-3
            assert error < 1e-12 * update, f"step {done}: {error / update:.1e} of an update"
            for name, buffer in ours.named_buffers():
                torch.testing.assert_close(buffer, expected[name], rtol=1e-12, atol=1e-14)
        state.scheduler.step()
    assert done == steps  # one of each epoch: the 5 images that are left over are dropped


def norm(tensors: Iterable[Tensor]) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()


def test_the_network_has_the_originals_shapes() -> None:
    """At its own widths, where the third gate's 64 hidden channels are half of its skip connection's 128."""
    with torch.device("meta"):
        original = OriginalAttUNet("transpose", WIDTHS, NUM_CLASSES)
        ours = build_model(prepare("config", ["experiment=original"])[1], NUM_CLASSES)
    expected = {name: value.shape for name, value in rename_original_weights(original.state_dict()).items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected
    gates = {level: original.state_dict()[f"Att{level}.W_g.0.weight"].shape[0] for level in (5, 4, 3, 2)}
    assert gates == {5: 256, 4: 128, 3: 64, 2: 32}
    assert sum(p.numel() for p in ours.parameters()) == 57_164_813


def test_the_weights_start_from_the_originals_distributions(data: Path) -> None:
    model = build_experiment(data, "model.channels=[16,32,64]", "dataset.image_size=[32,32]").state.model
    for kind, center in ((nn.Conv2d, 0.0), (nn.ConvTranspose2d, 0.0), (nn.BatchNorm2d, 1.0)):
        modules = [module for module in model.modules() if isinstance(module, kind)]
        assert not any(module.bias.any() for module in modules if module.bias is not None)
        weights = torch.cat([module.weight.detach().flatten() for module in modules]).double()
        assert weights.mean().item() == pytest.approx(center, abs=5 * 0.02 / len(weights) ** 0.5)
        assert weights.std().item() == pytest.approx(0.02, rel=5 / (2 * len(weights)) ** 0.5)


def test_images_and_masks_are_the_originals(data: Path) -> None:
    """Its pipeline of albumentations, without flips in validation; one of the four flips of it in training."""
    experiment = build_experiment(data, "model.channels=[2,4]", "loader.batch_size=2")
    pipeline: Any = A.Compose(
        [A.Resize(224, 224), A.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), ToTensorV2()]
    )
    expected = {split: [pipeline(**read(file)) for file in sorted((data / split).iterdir())] for split in ("train", "val")}
    normalize, val = experiment.setup.normalize, experiment.val_data
    assert len(val) == 3
    for index, sample in enumerate(expected["val"]):
        image, mask = val.batch([(0, index)])
        torch.testing.assert_close(normalize(image)[0], sample["image"], rtol=0, atol=1e-5)
        assert torch.equal(mask[0], sample["mask"])
    seen = set()
    for index, sample in enumerate(expected["train"]):
        image, mask = experiment.train_data.batch([(0, index)])
        flips = [axes for axes in ((), (-1,), (-2,), (-2, -1)) if torch.equal(mask[0], sample["mask"].flip(axes))]
        found = [a for a in flips if torch.allclose(normalize(image)[0], sample["image"].flip(a), rtol=0, atol=1e-5)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 4


def read(file: Path) -> dict[str, np.ndarray]:
    """Image and mask as the original reads them: RGB, and the red channel."""
    mask = file.parent.with_name(f"{file.parent.name}annot") / file.name
    with Image.open(file) as image, Image.open(mask) as ids:
        return {"image": np.array(image.convert("RGB")), "mask": np.array(ids.convert("RGB"))[:, :, 0]}
