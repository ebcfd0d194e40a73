"""Whether a loss can be trained with: tried on made-up logits before a run's folder is made."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.config import Config
from src.errors import ConfigError
from src.parts import blaming
from src.setup import Setup

CERTAIN = 1e4  # a logit of a class beyond doubt
LOSS_TAKES = (
    "a loss gets logits [batch, classes, height, width] and class ids [batch, height, width]; use src.losses.CrossEntropy"
)


def rehearse_loss(config: Config, setup: Setup) -> None:
    """Tries the loss on made-up logits, on the CPU, where a wrong class id is an error that can be caught.

    There are more images than classes, so that shapes which do not belong together cannot be broadcast. Every class occurs, and
    void.

    Raises:
        ConfigError: If it fails, is not one finite number, falls without bound, or is not finite where all pixels are void.
    """
    classes = setup.num_classes
    masks = torch.arange(classes + 1)[:, None, None].add(torch.arange(6).view(2, 3)).remainder(classes)
    certain = CERTAIN * F.one_hot(masks, classes).permute(0, 3, 1, 2).float()
    drawn = torch.randn(certain.shape, generator=torch.Generator().manual_seed(0))
    void = torch.full_like(masks, setup.ignore_index)
    some_void = masks.clone()
    some_void[:, 0, 0] = setup.ignore_index
    with blaming("loss", config.loss, LOSS_TAKES):
        loss = copy.deepcopy(setup.loss).cpu()
        if not _is_finite(loss, drawn, some_void):
            raise ValueError("the loss or its gradient is not finite for ordinary logits")
        if loss(certain, some_void) < -CERTAIN / 100:
            raise ValueError("falls without bound as logits grow, so it takes log-probabilities, where a network gives logits")
        if not isinstance(loss, nn.CrossEntropyLoss) and not _is_finite(loss, drawn, void):
            raise ConfigError(
                f"loss={config.loss['_target_']}: not finite where all pixels are void (ignore index {setup.ignore_index}), which"
                " would end training; let it be 0 there"
            )


def _is_finite(loss: nn.Module, logits: Tensor, masks: Tensor) -> bool:
    """Whether the loss and its gradient are; raises TypeError if it is not one number."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, masks)
    if not isinstance(value, Tensor) or value.dim():
        shape = f"values of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise TypeError(f"gives {shape}, training needs one number (reduction: mean)")
    value.backward()
    return bool(torch.isfinite(value)) and logits.grad is not None and bool(torch.isfinite(logits.grad).all())
