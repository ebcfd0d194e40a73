"""What training minimises."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

ClassWeights = Literal["none", "median_frequency"]


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
        # Flattened, since torch's two-dimensional form has no deterministic kernel on CUDA.
        flat = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).float()
        truth = masks.reshape(-1).long()
        total = F.cross_entropy(flat, truth, self.weight, ignore_index=self.ignore_index, reduction="sum")
        counted = truth != self.ignore_index
        if self.weight is None:
            return total / counted.sum().clamp(min=1)
        pixel_weights = self.weight[truth.clamp(max=logits.shape[1] - 1)] * counted
        return total / pixel_weights.sum().clamp(min=torch.finfo(torch.float32).tiny)


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
