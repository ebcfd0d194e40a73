"""Whether a loss can be trained with: tried on made-up logits before a run's folder is made."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.config import Config
from src.errors import ConfigError
from src.losses import counts_pixels, divide, sum_loss
from src.parts import blaming
from src.setup import Setup

SIDE = 16  # of the masks, in pixels: losses may pool or look through windows
CERTAIN = 1e4  # a logit of a class beyond doubt
LOSS_TAKES = (
    "a loss gets logits [batch, classes, height, width] and class ids [batch, height, width]; use src.losses.CrossEntropy"
)


def rehearse_loss(config: Config, setup: Setup, has_void: bool) -> None:
    """Tries the loss on made-up logits, on the CPU, where a wrong class id is an error that can be caught.

    There are more images than classes, so that shapes which do not belong together cannot be broadcast. Every class occurs, and
    void where the data have it.

    Raises:
        ConfigError: If it fails, is not one finite number, falls without bound, or is not finite where all pixels are void.
    """
    classes = setup.num_classes
    masks = torch.arange(classes + 1)[:, None, None].add(torch.arange(SIDE**2).view(SIDE, SIDE)).remainder(classes)
    certain = CERTAIN * F.one_hot(masks, classes).permute(0, 3, 1, 2).float()
    drawn = torch.randn(certain.shape, generator=torch.Generator().manual_seed(0))
    void = torch.full_like(masks, setup.ignore_index)
    some_void = masks.clone()
    if has_void:
        some_void[:, 0, 0] = setup.ignore_index
    hint = LOSS_TAKES + (f"; the masks here hold void too, id {setup.ignore_index}" if has_void else "")
    with blaming("loss", config.loss, hint):
        loss = copy.deepcopy(setup.loss).cpu()
        if not _is_finite(loss, drawn, some_void):
            raise ValueError("the loss or its gradient is not finite for ordinary logits")
        if compute_loss(loss, certain, some_void) < -CERTAIN / 100:
            raise ValueError("falls without bound as logits grow, so it takes log-probabilities, where a network gives logits")
        if has_void and not _is_finite(loss, drawn, void):
            raise ConfigError(
                f"loss={config.loss['_target_']}: not finite where all pixels are void (ignore index {setup.ignore_index}), which"
                " would end training; let it be 0 there"
            )


def compute_loss(loss: nn.Module, logits: Tensor, masks: Tensor) -> Tensor:
    """The loss as training computes it; raises TypeError if it is not one number."""
    if not counts_pixels(loss):
        value = loss(logits.float(), masks.long())
        if not isinstance(value, Tensor) or value.dim():
            shape = f"values of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(f"gives {shape}, training needs one number (reduction: mean)")
        return value
    return divide(*sum_loss(loss, logits, masks))


def _is_finite(loss: nn.Module, logits: Tensor, masks: Tensor) -> bool:
    """Whether the loss and its gradient are."""
    logits = logits.clone().requires_grad_()
    value = compute_loss(loss, logits, masks)
    value.backward()
    return bool(torch.isfinite(value)) and logits.grad is not None and bool(torch.isfinite(logits.grad).all())
