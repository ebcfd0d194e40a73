"""Attention gates: what of a skip connection reaches the decoder."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class AttentionGate(nn.Module):
    """Scales each position of a skip connection by an attention coefficient in (0, 1).

    Additive attention of Oktay et al. 2018 (arXiv:1804.03999, equations 1 and 2):
    attention = sigmoid(score(relu(from_signal(signal) + from_skip(skip)))).

    Differs from the paper as the widespread AttU_Net code does: the signal is already up-sampled to the skip's
    resolution, each 1x1 convolution is followed by BatchNorm (the score too), and nothing follows the product.

    Args:
        signal_channels: Channels of the gating signal.
        skip_channels: Channels of the skip connection.
        hidden_channels: Width of the joint projection (F_int in the paper).
    """

    def __init__(self, signal_channels: int, skip_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.from_signal = nn.Sequential(nn.Conv2d(signal_channels, hidden_channels, 1), nn.BatchNorm2d(hidden_channels))
        self.from_skip = nn.Sequential(nn.Conv2d(skip_channels, hidden_channels, 1), nn.BatchNorm2d(hidden_channels))
        self.score = nn.Sequential(nn.Conv2d(hidden_channels, 1, 1), nn.BatchNorm2d(1))

    def attend(
        self, signal: Float[Tensor, "batch signal h w"], skip: Float[Tensor, "batch skip h w"]
    ) -> Float[Tensor, "batch 1 h w"]:
        """The attention coefficients alone."""
        return torch.sigmoid(self.score(F.relu(self.from_signal(signal) + self.from_skip(skip))))

    def forward(
        self, signal: Float[Tensor, "batch signal h w"], skip: Float[Tensor, "batch skip h w"]
    ) -> Float[Tensor, "batch skip h w"]:
        """The skip connection, scaled."""
        return skip * self.attend(signal, skip)
