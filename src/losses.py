"""What training minimises: a numerator and a denominator, each summed over batches and ranks, divided once."""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

ClassWeights = Literal["none", "median_frequency"]


@runtime_checkable
class PixelLoss(Protocol):
    """A loss that is a sum over pixels, divided by the sum of their weights."""

    def sums(self, logits: Float[Tensor, "batch classes h w"], masks: Integer[Tensor, "batch h w"]) -> tuple[Tensor, Tensor]:
        """The two sums, scalars on the logits' device; both are 0 where every pixel is ignored."""
        ...


def sum_loss(
    loss: nn.Module, logits: Float[Tensor, "batch classes h w"], masks: Integer[Tensor, "batch h w"]
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of a loss over a batch: scalars in fp32, or in fp64 if the logits are.

    A `PixelLoss` and torch's CrossEntropyLoss count pixels. Any other loss is a mean over the batch and counts images:
    its numerator is the mean times the number of images.

    Args:
        loss: Any module that `conf/loss` can name.
        logits: In any floating-point type.
        masks: Class ids.
    """
    logits, masks = logits.to(torch.promote_types(logits.dtype, torch.float32)), masks.long()
    if type(loss) is nn.CrossEntropyLoss:
        numerator, denominator = sum_cross_entropy(logits, masks, loss.weight, loss.ignore_index, loss.label_smoothing)
    elif isinstance(loss, PixelLoss) and counts_pixels(loss):
        numerator, denominator = loss.sums(logits, masks)
    else:
        numerator, denominator = loss(logits, masks) * len(logits), logits.new_full((), len(logits))  # filled on the device
    return numerator, denominator.detach().to(numerator.dtype)


def counts_pixels(loss: nn.Module) -> bool:
    """Whether it is divided by what its pixels weigh, not by the number of images."""
    if type(loss) is nn.CrossEntropyLoss:  # a subclass may compute something else
        return True
    return isinstance(loss, PixelLoss) and not _overrides_forward(type(loss))


def _overrides_forward(cls: type) -> bool:
    """Whether `forward` was written for a subclass of the one that defines `sums`, which then says something else."""
    return "sums" not in vars(next(base for base in cls.__mro__ if {"forward", "sums"} & vars(base).keys()))


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The mean; 0, with a gradient of 0, where nothing counts."""
    return numerator / torch.where(denominator > 0, denominator, 1)


def sum_cross_entropy(
    logits: Float[Tensor, "batch classes h w"],
    masks: Integer[Tensor, "batch h w"],
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The two sums whose ratio is torch's mean cross-entropy: the denominator sums the weights of the true classes."""
    # Flattened, since torch's two-dimensional form has no deterministic kernel on CUDA.
    flat = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    truth = masks.reshape(-1)
    weight = None if weight is None else weight.to(flat.dtype)
    numerator = F.cross_entropy(flat, truth, weight, ignore_index=ignore_index, reduction="sum", label_smoothing=label_smoothing)
    counted = truth != ignore_index
    if weight is None:
        return numerator, counted.sum().to(flat.dtype)
    return numerator, (weight[truth.clamp(0, logits.shape[1] - 1)] * counted).sum()


class CrossEntropy(nn.Module):
    """Cross-entropy, averaged over the pixels that are not ignored; 0 where all are.

    Args:
        ignore_index: Mask id that does not count.
        class_pixels: How many training pixels have each id, from the data set.
        class_image_pixels: How many pixels the training images that contain an id have, from the data set.
        num_classes: Channels of the logits.
        class_weights: `none`, or `median_frequency` (Eigen & Fergus 2015, arXiv:1411.4734): median(f) / f of each
            class, where f is its share of the pixels of the images that contain it. A class that never occurs in
            training gets weight 0.
    """

    weight: Tensor | None

    def __init__(
        self,
        ignore_index: int,
        class_pixels: np.ndarray,
        class_image_pixels: np.ndarray,
        num_classes: int,
        class_weights: ClassWeights = "none",
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        weight = None
        if class_weights == "median_frequency":
            weight = median_frequency_weights(class_pixels, class_image_pixels, num_classes, ignore_index)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Float[Tensor, "batch classes h w"], masks: Integer[Tensor, "batch h w"]) -> Tensor:
        """The mean loss, a scalar in nats."""
        return divide(*sum_loss(self, logits, masks))

    def sums(self, logits: Float[Tensor, "batch classes h w"], masks: Integer[Tensor, "batch h w"]) -> tuple[Tensor, Tensor]:
        """As `PixelLoss` says."""
        return sum_cross_entropy(logits, masks, self.weight, self.ignore_index)


def median_frequency_weights(
    class_pixels: np.ndarray, class_image_pixels: np.ndarray, num_classes: int, ignore_index: int
) -> Tensor:
    """float32 [num_classes]; see `CrossEntropy`."""
    pixels, image_pixels = class_pixels[:num_classes], class_image_pixels[:num_classes]
    present = (pixels > 0) & (np.arange(num_classes) != ignore_index)
    frequency = np.where(present, pixels, 1) / np.where(present, image_pixels, 1)
    median = np.median(frequency[present]) if present.any() else 0.0
    weights = np.where(present, median / frequency, 0.0)
    return torch.from_numpy(weights).float()
