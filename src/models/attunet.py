"""Attention U-Net: U-Net whose skip connections pass through attention gates."""

from collections.abc import Sequence

from torch import Tensor, nn

from src.models.blocks import Upsampling
from src.models.gates import AttentionGate
from src.models.initialization import Init, initialize
from src.models.unet import UNet


class AttU_Net(UNet):  # noqa: N801  the name that the field uses
    """Attention U-Net (Oktay et al. 2018, arXiv:1804.03999) in the form that is widely known as AttU_Net.

    Every skip connection, the finest too, is gated by the up-sampled signal of the level below. Takes what `UNet` takes and
    pads as it does. With the default widths, 33 classes and `transpose` it has 57,164,813 parameters, with `nearest` 34,880,653.

    Args:
        gate_channels: Hidden channels of each gate (F_int), finest first; null: half the skip's width. The original script's
            second is 64 at any widths.

    Raises:
        ValueError: If there are not as many as skip connections.
    """

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        upsampling: Upsampling = "transpose",
        init: Init = "kaiming",
        init_gain: float | None = None,
        in_channels: int = 3,
        gate_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(num_classes, channels, upsampling, "default", None, in_channels)
        skips = channels[:-1]
        hidden = [max(1, skip // 2) for skip in skips] if gate_channels is None else gate_channels
        if len(hidden) != len(skips):
            raise ValueError(f"gate_channels={list(hidden)}; allowed are null, or {len(skips)} numbers, one fewer than channels")
        deepest_first = reversed(list(zip(skips, hidden, strict=True)))  # torch's own initialization draws in this order
        self.gates = nn.ModuleList(AttentionGate(skip, skip, width) for skip, width in deepest_first)
        initialize(self, init, init_gain)

    def select(self, stage: int, signal: Tensor, skip: Tensor) -> Tensor:
        """The skip connection, scaled by the attention of this stage's gate (stage 0 is the deepest)."""
        return self.gates[stage](signal, skip)
