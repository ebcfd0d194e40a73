"""Scores: by hand, by torchmetrics, and whatever the batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from src.metrics import compute_scores, count_confusion

VOID = 11
NAMES = ("a", "b", "c")


def logits_of(prediction: Tensor, num_classes: int) -> Tensor:
    """Logits whose largest is the predicted class."""
    noise = torch.rand(prediction.shape[0], num_classes, *prediction.shape[1:], generator=torch.Generator().manual_seed(0))
    return noise + 2 * torch.nn.functional.one_hot(prediction, num_classes).permute(0, 3, 1, 2)


def random_case(seed: int, num_classes: int, void: int, batch: int = 4) -> tuple[Tensor, Tensor]:
    """Predictions that are right more often than not, and masks of which a fifth is void."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, num_classes, (batch, 9, 11), generator=generator)
    wrong = torch.randint(0, num_classes, masks.shape, generator=generator)
    prediction = torch.where(torch.rand(masks.shape, generator=generator) < 0.6, masks, wrong)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = void
    return prediction, masks.byte()


def test_hand_case() -> None:
    """One 2x5 image of three classes and void."""
    truth = torch.tensor([[[0, 0, 0, 1, 1], [1, 2, 2, 255, 255]]], dtype=torch.uint8)
    prediction = torch.tensor([[[0, 0, 1, 1, 2], [1, 2, 0, 0, 2]]])
    confusion = count_confusion(logits_of(prediction, 3), truth, 255)
    assert confusion.tolist() == [[2, 1, 0], [0, 2, 1], [1, 0, 1]]
    scores = compute_scores(confusion.numpy(), NAMES)
    assert scores.iou == {"a": pytest.approx(2 / 4), "b": pytest.approx(2 / 4), "c": pytest.approx(1 / 3)}
    assert scores.miou == pytest.approx((2 / 4 + 2 / 4 + 1 / 3) / 3)
    assert scores.pixel_accuracy == pytest.approx(5 / 8)
    assert scores.class_accuracy == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)
    assert scores.accuracy_all_pixels == pytest.approx(5 / 8)
    assert scores.absent == ()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_classes", "void"), [(11, VOID), (4, 255), (12, 5)])
def test_equals_torchmetrics(seed: int, num_classes: int, void: int) -> None:
    prediction, masks = random_case(seed, num_classes, void)
    confusion = count_confusion(logits_of(prediction, num_classes), masks, void)
    truth = masks.long()
    expected = MulticlassConfusionMatrix(num_classes, ignore_index=void)(prediction, truth)
    assert torch.equal(confusion, expected)
    assert int((truth == void).sum()) > 0
    scores = compute_scores(confusion.numpy(), [str(number) for number in range(num_classes)])
    iou = MulticlassJaccardIndex(num_classes, average=None, ignore_index=void)(prediction, truth)
    present = [number for number in range(num_classes) if number != void]
    np.testing.assert_allclose([scores.iou[str(n)] for n in present], iou[present], rtol=1e-6)
    micro = MulticlassAccuracy(num_classes, average="micro", ignore_index=void)(prediction, truth).item()
    assert scores.pixel_accuracy == pytest.approx(micro, rel=1e-6)
    if void >= num_classes:  # else torchmetrics' means count the void class as one more
        macro_iou = MulticlassJaccardIndex(num_classes, average="macro", ignore_index=void)(prediction, truth).item()
        macro = MulticlassAccuracy(num_classes, average="macro", ignore_index=void)(prediction, truth).item()
        assert scores.miou == pytest.approx(macro_iou, rel=1e-6)
        assert scores.class_accuracy == pytest.approx(macro, rel=1e-6)
    else:
        assert math.isnan(scores.iou[str(void)])
        assert scores.absent == (str(void),)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.sampled_from([3, 255]))
def test_batches_change_nothing(seed: int, sizes: list[int], void: int) -> None:
    prediction, masks = random_case(seed, 4, void, batch=sum(sizes))
    logits = logits_of(prediction, 4)
    whole = count_confusion(logits, masks, void)
    pairs = zip(logits.split(sizes), masks.split(sizes), strict=True)
    assert torch.equal(sum((count_confusion(part, mask, void) for part, mask in pairs), torch.zeros_like(whole)), whole)
    counted = np.zeros((4, 4), np.int64)
    for true, predicted in zip(masks.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true != void:
            counted[true, predicted] += 1
    np.testing.assert_array_equal(whole.numpy(), counted)
    halves = compute_scores(whole.numpy(), NAMES)
    assert compute_scores(counted, NAMES) == halves or math.isnan(sum(halves.iou.values()))


def test_an_absent_class_is_named_and_left_out_of_the_means() -> None:
    # b never occurs, though one pixel of a is taken for it.
    scores = compute_scores(np.array([[3, 1, 0], [0, 0, 0], [1, 0, 5]]), NAMES)
    assert math.isnan(scores.iou["b"])
    assert scores.absent == ("b",)
    assert scores.iou["a"] == pytest.approx(3 / 5)
    assert scores.iou["c"] == pytest.approx(5 / 6)
    assert scores.miou == pytest.approx((3 / 5 + 5 / 6) / 2)
    assert scores.class_accuracy == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert scores.pixel_accuracy == pytest.approx(8 / 10)


@pytest.mark.parametrize(("to_next", "to_absent", "ours", "theirs"), [(5, 2, 5 / 17, 15 / 68), (7, 0, 5 / 19, 5 / 19)])
def test_an_absent_class_that_is_predicted_costs_others_a_mean_and_not_us(
    to_next: int, to_absent: int, ours: float, theirs: float
) -> None:
    """Three classes, each right 5 times of 12; the fourth has no pixel in the ground truth.

    Where 2 pixels of each class are taken for the fourth, each IoU is 5 / (12 + 10 - 5) = 5/17, 0.294 on the mean of three, and
    0.221 on that of four, where torchmetrics and mmsegmentation count the fourth as 0. Where nothing is, all agree.
    """
    confusion = np.zeros((4, 4), np.int64)
    for number in range(3):
        confusion[number, [number, (number + 1) % 3, 3]] = [5, to_next, to_absent]
    scores = compute_scores(confusion, ("a", "b", "c", "d"))
    assert scores.miou == pytest.approx(ours)
    assert scores.absent == ("d",)
    truth, prediction = (torch.tensor(np.repeat(ids.ravel(), confusion.ravel())) for ids in np.indices((4, 4)))
    assert MulticlassJaccardIndex(4, average="macro")(prediction, truth).item() == pytest.approx(theirs)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)  # mmsegmentation: nanmean of intersection by union
    assert np.mean([right / both for right, both in zip(np.diag(confusion), union, strict=True) if both]) == pytest.approx(theirs)


def test_a_class_that_is_there_and_never_found_scores_zero() -> None:
    scores = compute_scores(np.array([[2, 0], [3, 0]]), ["a", "b"])
    assert scores.iou == {"a": pytest.approx(2 / 5), "b": 0.0}
    assert scores.miou == pytest.approx(1 / 5)
    assert scores.absent == ()


def test_all_pixels_ignored_gives_nan() -> None:
    masks = torch.full((2, 3, 3), 255, dtype=torch.uint8)
    confusion = count_confusion(torch.randn(2, 3, 3, 3), masks, 255)
    assert not confusion.any()
    scores = compute_scores(confusion.numpy(), NAMES)
    values = [scores.miou, scores.pixel_accuracy, scores.class_accuracy, scores.accuracy_all_pixels, *scores.iou.values()]
    assert len(values) == 7
    assert all(math.isnan(value) for value in values)
    assert scores.absent == NAMES


def test_predicting_an_id_beyond_the_scored_classes_is_wrong() -> None:
    """A 33-channel head on 11 classes: void and the 21 others are never right."""
    truth = torch.tensor([[[0, 0, 1, 11, 2]]], dtype=torch.uint8)
    prediction = torch.tensor([[[0, 20, 11, 0, 2]]])
    confusion = count_confusion(logits_of(prediction, 33), truth, VOID)
    assert confusion.shape == (33, 33)
    assert int(confusion.sum()) == 4
    scores = compute_scores(confusion.numpy(), NAMES)
    assert scores.pixel_accuracy == pytest.approx(2 / 4)
    assert scores.iou == {"a": pytest.approx(1 / 2), "b": 0.0, "c": pytest.approx(1.0)}
    assert scores.accuracy_all_pixels == pytest.approx(2 / 4)


def test_accuracy_over_all_pixels_counts_rows_that_are_not_scored() -> None:
    """The original script's accuracy: void, stored as 3 and not ignored, is a class like any other."""
    confusion = np.array([[4, 0, 0, 1], [0, 2, 0, 0], [0, 0, 1, 1], [2, 0, 0, 9]])
    scores = compute_scores(confusion, NAMES)
    assert scores.accuracy_all_pixels == pytest.approx(16 / 20)
    assert scores.pixel_accuracy == pytest.approx(7 / 9)
    assert scores.iou["a"] == pytest.approx(4 / 5)  # what void pixels are taken for costs a scored class nothing


def test_scores_stay_exact_where_counts_are_large() -> None:
    """A whole data set has more pixels than fp32 counts one by one."""
    confusion = np.array([[10**11, 1], [0, 10**11]])
    scores = compute_scores(confusion, ["a", "b"])
    assert 0 < 1 - scores.pixel_accuracy < 1e-11
