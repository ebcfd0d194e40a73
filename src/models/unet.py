"""U-Net: the control without gates."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from src.models.blocks import DoubleConv, Encoder, UpConv, Upsampling, check_channels, pad_to_multiple
from src.models.initialization import Init, initialize


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with the blocks and widths of AttU_Net, its control.

    Height and width may be anything: the image is padded at the bottom and the right by repeating its last row and
    column to a multiple of 2^(levels - 1), and the logits are cropped back.

    Args:
        num_classes: Channels of the logits.
        channels: Width of each level, finest first; two levels at least.
        upsampling: `transpose` or `nearest`, see `UpConv`.
        init: How weights start, see `initialize`.
        init_gain: Scale of the initialisation; null is the textbook gain.
        in_channels: Channels of the image.

    Raises:
        ValueError: If `channels`, `upsampling` or `init` is not of the kind above.
    """

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        upsampling: Upsampling = "transpose",
        init: Init = "kaiming",
        init_gain: float | None = None,
        in_channels: int = 3,
    ) -> None:
        check_channels(channels)
        super().__init__()
        self.encoder = Encoder(in_channels, channels)
        # From the deepest level up: (deep, skip) is (1024, 512), (512, 256) ...
        pairs = [(channels[level + 1], channels[level]) for level in reversed(range(len(channels) - 1))]
        self.upsample = nn.ModuleList(UpConv(deep, skip, upsampling) for deep, skip in pairs)
        self.merge = nn.ModuleList(DoubleConv(2 * skip, skip) for _, skip in pairs)
        self.head = nn.Conv2d(channels[0], num_classes, kernel_size=1)
        initialize(self, init, init_gain)

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return 2 ** len(self.upsample)

    def select(self, stage: int, signal: Tensor, skip: Tensor) -> Tensor:
        """What of the skip connection reaches the decoder: here all of it."""
        del stage, signal
        return skip

    def forward(self, image: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes h w"]:
        """The logits of each pixel."""
        height, width = image.shape[-2:]
        *skips, features = self.encoder(pad_to_multiple(image, self.size_multiple))
        for stage, (upsample, merge) in enumerate(zip(self.upsample, self.merge, strict=True)):
            signal = upsample(features)
            skip = self.select(stage, signal, skips.pop())
            features = merge(torch.cat([skip, signal], dim=1))
        return self.head(features)[..., :height, :width]
