"""Weights of the original script and of LeeJunHyun's Image_Segmentation give the logits that those give."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from original_network import OriginalAttUNet
from torch import Tensor, nn

from src.errors import CheckpointError
from src.models.attunet import AttU_Net
from src.models.blocks import Upsampling
from src.models.original_weights import is_original_layout, rename_original_weights
from src.models.unet import UNet
from src.restore import load_weights

WIDTHS = [4, 8, 16, 32, 64]
NUM_CLASSES = 6
VARIANTS = ["transpose", "nearest", "leejunhyun"]


def build_original(variant: str, att3: int | None = None) -> OriginalAttUNet:
    """With random weights and running statistics, as if trained."""
    torch.manual_seed(11)
    network = OriginalAttUNet(variant, WIDTHS, NUM_CLASSES, att3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                assert module.num_batches_tracked is not None
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.fill_(17)
    return network


def build_ours(variant: str) -> AttU_Net:
    upsampling: Upsampling = "transpose" if variant == "transpose" else "nearest"
    return AttU_Net(NUM_CLASSES, WIDTHS, upsampling)


def random_image() -> Tensor:
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_logits_are_the_originals(variant: str, prefix: str) -> None:
    original, ours, image = build_original(variant), build_ours(variant), random_image()
    weights = {prefix + key: value for key, value in original.state_dict().items()}
    assert is_original_layout(weights)
    ours.load_state_dict(rename_original_weights(weights), strict=True)
    with torch.no_grad():
        expected = original.eval()(image)
        assert expected.std() > 0.01  # a network that says something
        torch.testing.assert_close(ours.eval()(image), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.train()(image), original.train()(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_statistics_after_a_training_pass_and_gradients_are_the_originals(variant: str) -> None:
    original, ours, image = build_original(variant), build_ours(variant), random_image()
    ours.load_state_dict(rename_original_weights(original.state_dict()), strict=True)
    for network in (original, ours):
        network.train()
        network(image).square().mean().backward()
    renamed = rename_original_weights(original.state_dict())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, renamed[name], rtol=1e-5, atol=1e-5)
    gradients = rename_original_weights({name: p.grad for name, p in original.named_parameters() if p.grad is not None})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("variant", "tensors"), [("transpose", 248), ("nearest", 240), ("leejunhyun", 240)])
def test_every_tensor_is_renamed_once(variant: str, tensors: int) -> None:
    weights = build_original(variant).state_dict()
    assert len(weights) == tensors
    renamed = rename_original_weights(weights)
    assert len(renamed) == tensors
    assert set(renamed) == set(build_ours(variant).state_dict())
    assert {id(value) for value in renamed.values()} == {id(value) for value in weights.values()}


def test_our_own_weights_are_not_taken_for_the_originals() -> None:
    assert not is_original_layout(build_ours("transpose").state_dict())


def test_foreign_keys_are_kept_under_their_names() -> None:
    weights = build_original("nearest").state_dict() | {"RRCNN1.conv.0.weight": torch.zeros(1)}
    assert "RRCNN1.conv.0.weight" in rename_original_weights(weights)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_weights_takes_such_a_file(tmp_path: Path, variant: str, prefix: str) -> None:
    original, ours, image = build_original(variant), build_ours(variant), random_image()
    file = tmp_path / "original weights.pth"
    torch.save({prefix + key: value for key, value in original.state_dict().items()}, file)
    load_weights(file, ours)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), original.eval()(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_weights_of_the_original_at_other_widths(tmp_path: Path, variant: str) -> None:
    """Its third gate has 64 hidden channels whatever the widths: the refusal names the key, and with it the logits are its."""
    original, image = build_original(variant, att3=64), random_image()
    file = tmp_path / "original.pth"
    torch.save(original.state_dict(), file)
    with pytest.raises(CheckpointError, match=r"; it needs model\.gate_channels=\[2,64,8,16\]; "):
        load_weights(file, build_ours(variant))
    upsampling: Upsampling = "transpose" if variant == "transpose" else "nearest"
    ours = AttU_Net(NUM_CLASSES, WIDTHS, upsampling, gate_channels=[2, 64, 8, 16])
    load_weights(file, ours)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), original.eval()(image), rtol=1e-5, atol=1e-5)


def test_other_misfits_do_not_blame_the_gates(tmp_path: Path) -> None:
    file = tmp_path / "narrow.pt"
    torch.save(AttU_Net(NUM_CLASSES, [2, 4, 8, 16, 32]).state_dict(), file)
    with pytest.raises(CheckpointError) as caught:
        load_weights(file, build_ours("transpose"))
    assert "gate_channels" not in str(caught.value)


@pytest.mark.parametrize("hidden", [[2, 4, 8], [2, 4, 8, 16, 32], []])
def test_gates_that_are_too_few_or_too_many_are_refused(hidden: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^gate_channels=\[.*\]; allowed are null, or 4 numbers"):
        AttU_Net(NUM_CLASSES, WIDTHS, gate_channels=hidden)


def test_null_is_half_the_width_of_each_skip() -> None:
    half = [width // 2 for width in WIDTHS[:-1]]
    shapes = [{k: v.shape for k, v in AttU_Net(2, WIDTHS, gate_channels=g).state_dict().items()} for g in (None, half)]
    assert shapes[0] == shapes[1]


def test_load_weights_takes_our_own_file_bare_and_as_a_run_saves_it(tmp_path: Path) -> None:
    saved, image = build_ours("nearest").eval(), random_image()
    for number, content in enumerate((saved.state_dict(), {"model": saved.state_dict(), "epoch": 3})):
        file = tmp_path / f"{number}.pt"
        torch.save(content, file)
        loaded = build_ours("nearest").eval()
        with torch.no_grad():
            assert not torch.equal(loaded(image), saved(image))
            load_weights(file, loaded)
            assert torch.equal(loaded(image), saved(image))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        pytest.param(lambda: build_ours("nearest"), "upsample.0.0.weight", id="other up-sampling"),
        pytest.param(lambda: UNet(NUM_CLASSES, WIDTHS), "gates.0.from_signal.0.weight", id="no gates"),
        pytest.param(lambda: AttU_Net(NUM_CLASSES + 1, WIDTHS), "head.weight", id="other classes"),
        pytest.param(lambda: AttU_Net(NUM_CLASSES, WIDTHS[:4]), "encoder.levels.4.0.weight", id="fewer levels"),
        pytest.param(lambda: AttU_Net(NUM_CLASSES, [*WIDTHS, 128]), "encoder.levels.5.0.weight", id="more levels"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    tmp_path: Path, build: Callable[[], nn.Module], named: str
) -> None:
    network = build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    file = tmp_path / "original.pth"
    torch.save(build_original("transpose").state_dict(), file)
    with pytest.raises(CheckpointError) as caught:
        load_weights(file, network)
    assert str(file) in str(caught.value)
    assert named in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param([torch.zeros(1)], "holds list", id="a list"),
        pytest.param({}, "lacks", id="nothing"),
        pytest.param({"anything": torch.zeros(1)}, "anything", id="another dictionary"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, content: object, message: str) -> None:
    file = tmp_path / "odd.pt"
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(file, build_ours("nearest"))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"], ids=["empty", "text", "torn"])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bytes.pt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bytes\.pt"):
        load_weights(file, build_ours("nearest"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such checkpoint"):
        load_weights(tmp_path / "nowhere.pt", build_ours("nearest"))


class Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_before_it_does(tmp_path: Path, form: str) -> None:
    marker, file = tmp_path / "marker", tmp_path / "bad.pt"
    content = {"model": {"head.weight": torch.zeros(1)}, "extra": Malicious(marker)}
    if form == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps({"extra": Malicious(marker)}))
        pickle.loads(file.read_bytes())  # the trap works where nothing guards against it
        assert marker.is_dir()
        marker.rmdir()
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        load_weights(file, build_ours("nearest"))
    assert not marker.exists()
