"""One step of the optimisation."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from src.losses import divide, sum_loss
from src.metrics import count_confusion
from src.setup import Setup
from src.state import NEVER, TrainState

LEAST_SCALE = 2.0**-14  # of fp16's losses; a gradient that overflows below it has no finite value at any scale


def train_step(state: TrainState, setup: Setup, images: Tensor, masks: Tensor) -> None:
    """Forward, backward and update; a step whose loss or gradient is not finite changes nothing but the count of such steps.

    Args:
        state: What changes.
        setup: What does not.
        images: float [batch, 3, height, width], this rank's share.
        masks: uint8 [batch, height, width].
    """
    buffers = list(state.model.buffers()) if setup.max_skipped else []  # without skips nothing comes after a bad step
    before = [buffer.clone() for buffer in buffers]
    with setup.compute.autocast():
        logits = (setup.parallel or state.model)(images)
    numerator, denominator = sum_loss(setup.loss, logits, masks)
    loss_sum, loss_weight = setup.ranks.sum(torch.stack([numerator.detach(), denominator]))
    loss = divide(numerator, loss_weight) * setup.ranks.size  # DistributedDataParallel divides by the number of ranks
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimizer)
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)

    ok = _note_whether_finite(state, setup, loss_sum, norm)
    update_weights(state, ok, torch.isfinite(norm))
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(torch.where(ok, buffer, old))

    totals = state.totals
    totals.loss += torch.where(ok, loss_sum, 0)
    totals.loss_weight += torch.where(ok, loss_weight, 0)
    has_norm = ok & torch.isfinite(norm)  # fp16's first steps overflow by design
    totals.gradient_norm += torch.where(has_norm, norm, 0)
    totals.gradient_steps += has_norm
    totals.confusion += setup.ranks.sum(count_confusion(logits.detach(), masks, setup.ignore_index)) * ok


def _note_whether_finite(state: TrainState, setup: Setup, loss: Tensor, norm: Tensor) -> Tensor:
    """Whether the step may change anything, as a scalar on the device: nothing waits for it."""
    totals = state.totals
    gradient_is_bad = ~torch.isfinite(norm)
    if state.scaler.is_enabled():  # it meets overflowing gradients by itself and lowers its scale
        gradient_is_bad &= state.scaler.scale(torch.ones_like(norm)) < LEAST_SCALE
    finite = torch.isfinite(loss) & ~gradient_is_bad
    totals.skipped_in_a_row = torch.where(finite, 0, totals.skipped_in_a_row + 1)
    too_many = (totals.skipped_in_a_row > setup.max_skipped) & (totals.bad_step == NEVER)
    totals.bad_step = torch.where(too_many, state.step, totals.bad_step)
    totals.skipped_steps += ~finite
    return finite & (totals.bad_step == NEVER)


def update_weights(state: TrainState, ok: Tensor, gradient_is_finite: Tensor) -> None:
    """One optimizer step if both scalars are true, decided on the device where the optimizer can.

    Args:
        state: What changes.
        ok: Whether the step may change anything.
        gradient_is_finite: False is no fault under fp16, whose scaler then lowers its scale.
    """
    skips_on_device = _skips_on_device(state.optimizer)
    if state.scaler.is_enabled() or ok.device.type == "cpu" or not skips_on_device:
        # The scaler would leave such a step to a fused optimizer, whose first one must not be skipped.
        if ok.item() and (skips_on_device or gradient_is_finite.item()):  # costs nothing on the CPU, a wait elsewhere
            state.scaler.step(state.optimizer)
        state.scaler.update()
        return
    # Fused optimizers read these two, as they do for the gradient scaler, and skip the step on the device.
    state.optimizer.grad_scale, state.optimizer.found_inf = None, (~ok).float()  # type: ignore[attr-defined]
    state.optimizer.step()


def _skips_on_device(optimizer: Optimizer) -> bool:
    if not optimizer.state and any(group.get("momentum") for group in optimizer.param_groups):
        return False  # a skipped first step would leave momenta that nobody wrote
    return all(group.get("fused") for group in optimizer.param_groups)
