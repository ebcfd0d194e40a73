"""The loss: as torch's, with void left out, and weighted by class."""

import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from src.build import check
from src.cli import prepare
from src.datasets.camvid import CamVid
from src.errors import ConfigError
from src.losses import CrossEntropy, divide, median_frequency_weights, sum_loss

NUM_CLASSES = 5
NO_COUNTS = np.zeros(256, np.int64)
# reference/attention-unet-and-camvid.md 2.2, "median of 11": computed from the label images apart from this project.
CAMVID_WEIGHTS = [0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]


def counts(*values: int) -> np.ndarray:
    return np.array([*values, *[0] * (256 - len(values))], np.int64)


def random_batch(ignore_index: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, NUM_CLASSES, 6, 7, generator=generator) * 3
    masks = torch.randint(0, NUM_CLASSES, (3, 6, 7), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.3] = ignore_index
    return logits, masks.byte()


def weighted(ignore_index: int = 255, num_classes: int = NUM_CLASSES) -> tuple[CrossEntropy, Tensor]:
    """A weighted loss and its weights, computed here."""
    pixels, image_pixels = [100, 20, 3, 50, 7], [400, 300, 300, 400, 100]
    loss = CrossEntropy(ignore_index, counts(*pixels), counts(*image_pixels), num_classes, "median_frequency")
    frequency = {i: p / q for i, (p, q) in enumerate(zip(pixels, image_pixels, strict=True)) if i != ignore_index}
    middle = sorted(frequency.values())
    half = len(middle) // 2
    median = middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2
    return loss, torch.tensor([median / frequency[i] if i in frequency else 0.0 for i in range(num_classes)])


@pytest.mark.parametrize("ignore_index", [255, 11, 2])
@pytest.mark.parametrize("class_weights", ["none", "median_frequency"])
def test_value_and_gradient_are_torchs(ignore_index: int, class_weights: Literal["none", "median_frequency"]) -> None:
    logits, masks = random_batch(ignore_index)
    if class_weights == "none":
        loss, weight = CrossEntropy(ignore_index, NO_COUNTS, NO_COUNTS, NUM_CLASSES), None
    else:
        loss, weight = weighted(ignore_index)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = loss(ours, masks)
    expected = F.cross_entropy(theirs, masks.long(), weight, ignore_index=ignore_index)
    value.backward()
    expected.backward()
    assert value.shape == ()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("class_weights", ["none", "median_frequency"])
def test_a_batch_of_void_alone_costs_nothing(class_weights: Literal["none", "median_frequency"]) -> None:
    loss = CrossEntropy(255, counts(4, 2, 1, 1, 1), counts(9, 9, 9, 9, 9), NUM_CLASSES, class_weights)
    logits = torch.randn(2, NUM_CLASSES, 3, 3, requires_grad=True)
    value = loss(logits, torch.full((2, 3, 3), 255, dtype=torch.uint8))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()  # NaN would be true


def test_a_batch_of_a_class_without_weight_costs_nothing() -> None:
    loss = CrossEntropy(255, counts(4, 2, 0), counts(9, 9, 0), 3, "median_frequency")
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = loss(logits, torch.full((1, 2, 2), 2, dtype=torch.uint8))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_void_pixels_have_no_gradient_and_no_say() -> None:
    logits, masks = random_batch(255)
    loss = CrossEntropy(255, NO_COUNTS, NO_COUNTS, NUM_CLASSES)
    changed = torch.where((masks == 255)[:, None], logits + 50 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(changed, masks), loss(logits, masks))
    ours = logits.clone().requires_grad_()
    loss(ours, masks).backward()
    assert ours.grad is not None
    assert not ours.grad.permute(0, 2, 3, 1)[masks == 255].any()
    assert ours.grad.permute(0, 2, 3, 1)[masks != 255].any()


def test_half_precision_logits_are_summed_in_fp32() -> None:
    logits, masks = random_batch(255)
    loss = CrossEntropy(255, NO_COUNTS, NO_COUNTS, NUM_CLASSES)
    value = loss(logits.bfloat16(), masks)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, F.cross_entropy(logits.bfloat16().float(), masks.long(), ignore_index=255))


def test_channels_last_logits_cost_the_same() -> None:
    logits, masks = random_batch(255)
    loss = weighted()[0]
    torch.testing.assert_close(loss(logits.contiguous(memory_format=torch.channels_last), masks), loss(logits, masks))


def test_weights_of_a_hand_case() -> None:
    """Shares 0.5, 0.1 and 0.2 of the pixels of the images that hold them: the median is 0.2."""
    weights = median_frequency_weights(np.array([50, 10, 10]), np.array([100, 100, 50]), 3, 255)
    torch.testing.assert_close(weights, torch.tensor([0.4, 2.0, 1.0]))
    assert weights.dtype == torch.float32


def test_the_median_of_an_even_number_lies_between() -> None:
    weights = median_frequency_weights(np.array([50, 10]), np.array([100, 100]), 2, 255)
    torch.testing.assert_close(weights, torch.tensor([0.6, 3.0]))


def test_a_class_absent_in_training_has_weight_zero_and_no_part_in_the_median() -> None:
    weights = median_frequency_weights(np.array([50, 0, 10, 10]), np.array([100, 0, 100, 50]), 4, 255)
    torch.testing.assert_close(weights, torch.tensor([0.4, 0.0, 2.0, 1.0]))


def test_an_ignored_id_inside_the_classes_has_weight_zero_and_no_part_in_the_median() -> None:
    loss = CrossEntropy(1, counts(50, 99, 10, 10), counts(100, 100, 100, 50), 4, "median_frequency")
    assert loss.weight is not None
    torch.testing.assert_close(loss.weight, torch.tensor([0.4, 0.0, 2.0, 1.0]))


def test_void_that_is_learned_as_a_class_counts() -> None:
    """dataset.labels=index with ignore_index 255, as the original script ran: id 11 is one of the classes."""
    masks = torch.full((1, 2, 2), 11, dtype=torch.uint8)
    logits = torch.zeros(1, 33, 2, 2)
    assert CrossEntropy(255, NO_COUNTS, NO_COUNTS, 33)(logits, masks).item() == pytest.approx(np.log(33), rel=1e-6)
    assert CrossEntropy(11, NO_COUNTS, NO_COUNTS, 33)(logits, masks).item() == 0.0
    pixels, image_pixels = np.zeros(256, np.int64), np.zeros(256, np.int64)
    pixels[[0, 3, 11]], image_pixels[[0, 3, 11]] = [50, 10, 10], [100, 100, 50]
    weight = CrossEntropy(255, pixels, image_pixels, 33, "median_frequency").weight
    assert weight is not None
    assert weight[[0, 3, 11]].tolist() == pytest.approx([0.4, 2.0, 1.0])
    assert int((weight > 0).sum()) == 3


def test_weights_move_with_the_loss_and_stay_out_of_checkpoints() -> None:
    loss = weighted()[0]
    assert "weight" in dict(loss.named_buffers())
    assert loss.state_dict() == {}


def test_the_data_set_counts_what_the_weights_need(tmp_path: Path) -> None:
    """Two images of 2x4: class 0 fills half of both, class 3 a quarter of one, void the rest."""
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for name, rows in (("a", [[0, 0, 0, 0], [3, 3, 11, 11]]), ("b", [[0, 0, 0, 0], [11, 11, 11, 11]])):
        Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(tmp_path / "train" / f"{name}.png")
        Image.fromarray(np.array(rows, np.uint8)).save(tmp_path / "trainannot" / f"{name}.png")
    data = CamVid(str(tmp_path), "train")
    loss = CrossEntropy(data.ignore_index, data.class_pixels, data.class_image_pixels, data.num_classes, "median_frequency")
    assert loss.weight is not None  # frequencies 8/16 and 2/8, their median 3/8
    assert loss.weight.tolist() == pytest.approx([0.75, 0, 0, 1.5, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.skipif("CAMVID_ROOT" not in os.environ, reason="CAMVID_ROOT is not set: no CamVid to count")
def test_weights_of_the_real_camvid() -> None:
    data = CamVid(os.environ["CAMVID_ROOT"], "train")
    loss = CrossEntropy(data.ignore_index, data.class_pixels, data.class_image_pixels, data.num_classes, "median_frequency")
    assert loss.weight is not None
    assert loss.weight.tolist() == pytest.approx(CAMVID_WEIGHTS, abs=1e-3)


# --- numerator and denominator ---------------------------------------------------------------------------------------


def test_the_two_sums_of_a_hand_case() -> None:
    """Probabilities 1/4 and 3/4 at four pixels, one of them void."""
    logits = torch.tensor([0.0, math.log(3)], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    masks = torch.tensor([[[0, 1], [255, 0]]])
    first, second = math.log(4), math.log(4 / 3)
    plain = CrossEntropy(255, NO_COUNTS, NO_COUNTS, 2)
    assert [s.item() for s in sum_loss(plain, logits, masks)] == pytest.approx([2 * first + second, 3], rel=1e-12)
    weights = torch.tensor([2.0, 0.5])
    by_torch = nn.CrossEntropyLoss(weights, ignore_index=255)
    expected = [2 * 2 * first + 0.5 * second, 2 * 2 + 0.5]
    assert [s.item() for s in sum_loss(by_torch, logits, masks)] == pytest.approx(expected, rel=1e-12)
    smooth = nn.CrossEntropyLoss(ignore_index=255, label_smoothing=0.1)
    expected = [0.9 * (2 * first + second) + 0.05 * 3 * (first + second), 3]
    assert [s.item() for s in sum_loss(smooth, logits, masks)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ignore_index", [255, 2])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("has_weights", [False, True])
def test_the_sums_divided_are_torchs_mean(ignore_index: int, label_smoothing: float, has_weights: bool) -> None:
    logits, masks = random_batch(ignore_index)
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0]).double() if has_weights else None
    loss = nn.CrossEntropyLoss(weights, ignore_index=ignore_index, label_smoothing=label_smoothing)
    ours, theirs = logits.double().requires_grad_(), logits.double().requires_grad_()
    numerator, denominator = sum_loss(loss, ours, masks)
    (numerator / denominator).backward()
    expected = loss(theirs, masks.long())
    expected.backward()
    assert (numerator / denominator).item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_torchs_loss_of_void_alone_costs_nothing() -> None:
    logits = torch.randn(2, NUM_CLASSES, 3, 3, requires_grad=True)
    numerator, denominator = sum_loss(nn.CrossEntropyLoss(ignore_index=255), logits, torch.full((2, 3, 3), 255))
    divide(numerator, denominator).backward()
    assert (numerator.item(), denominator.item()) == (0, 0)
    assert logits.grad is not None
    assert not logits.grad.any()  # NaN would be true


def test_a_loss_that_is_no_sum_over_pixels_counts_images() -> None:
    logits, masks = random_batch(255)
    numerator, denominator = sum_loss(Spread(), logits, masks)
    assert denominator.item() == 3
    assert numerator.item() == pytest.approx(3 * logits.std().item())


class Spread(nn.Module):
    """No sum over pixels."""

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        return logits.std()


class Squares(nn.Module):
    """A sum over pixels of its own."""

    def sums(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        return (logits**2).sum(), torch.tensor(7)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        raise AssertionError("the sums are enough")


class Focal(CrossEntropy):
    """Takes the weights of its base and computes something else."""

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        return logits.mean()


def test_a_loss_of_ones_own_may_give_its_sums_and_a_subclass_its_mean() -> None:
    logits, masks = random_batch(255)
    numerator, denominator = sum_loss(Squares(), logits, masks)
    assert numerator.item() == pytest.approx((logits**2).sum().item())
    assert (denominator.item(), denominator.dtype) == (7, torch.float32)
    numerator, denominator = sum_loss(Focal(255, NO_COUNTS, NO_COUNTS, NUM_CLASSES), logits, masks)
    assert numerator.item() == pytest.approx(3 * logits.mean().item())
    assert denominator.item() == 3


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_must_be_a_mean(tiny_overrides: list[str], reduction: str) -> None:
    words = ["~loss.class_weights", "loss._target_=torch.nn.CrossEntropyLoss", f"+loss.reduction={reduction}"]
    _, config = prepare("config", [*tiny_overrides, *words])
    with pytest.raises(ConfigError, match=rf"^loss\.reduction={reduction}: .*; use mean$"):
        check(config)
