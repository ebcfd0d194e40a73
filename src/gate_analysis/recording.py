"""Attention coefficients of a forward pass."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from src.models.gates import AttentionGate


def record_attention(model: nn.Module, forward: Callable[[], object]) -> list[np.ndarray]:
    """Each gate's attention during `forward()`, deepest gate first: float32 [images, h, w]; empty without gates."""
    maps: list[np.ndarray] = []

    def keep(gate: nn.Module, inputs: tuple[Tensor, Tensor], _: Tensor) -> None:
        assert isinstance(gate, AttentionGate)
        with torch.no_grad():
            maps.append(gate.attend(*inputs)[:, 0].float().cpu().numpy())

    hooks = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, AttentionGate)]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return maps
