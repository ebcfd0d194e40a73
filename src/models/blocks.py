"""The parts that the U-shaped networks share.

Shape letters: `batch`, `c` channels, `h` height, `w` width; `h2` is twice `h`.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Upsampling = Literal["transpose", "nearest"]
MAX_LEVELS = 15  # at which an image of 16384 pixels a side is a single pixel


def conv_norm_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    """A 3x3 convolution (with bias, as in the original script), BatchNorm and ReLU."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class DoubleConv(nn.Sequential):
    """Two times (3x3 convolution, BatchNorm, ReLU): [batch, in, h, w] -> [batch, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(*conv_norm_relu(in_channels, out_channels), *conv_norm_relu(out_channels, out_channels))


class UpConv(nn.Sequential):
    """Doubles height and width, then 3x3 convolution, BatchNorm, ReLU: the gating signal.

    Args:
        in_channels: Channels of the coarser feature map.
        out_channels: Channels of the skip connection that the result meets.
        upsampling: `transpose` is ConvTranspose2d(kernel 4, stride 2, padding 1), `nearest` nearest neighbour.
    """

    def __init__(self, in_channels: int, out_channels: int, upsampling: Upsampling) -> None:
        if upsampling == "transpose":
            double: nn.Module = nn.ConvTranspose2d(in_channels, in_channels, kernel_size=4, stride=2, padding=1)
        elif upsampling == "nearest":
            double = nn.Upsample(scale_factor=2, mode="nearest")
        else:
            raise ValueError(f"upsampling={upsampling!r}; allowed are 'transpose' and 'nearest'")
        super().__init__(double, *conv_norm_relu(in_channels, out_channels))


class Encoder(nn.Module):
    """A DoubleConv at each level, 2x2 max-pooling between levels.

    Args:
        in_channels: Channels of the image.
        channels: Width of each level, finest first.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        inputs = [in_channels, *channels[:-1]]
        self.levels = nn.ModuleList(DoubleConv(i, o) for i, o in zip(inputs, channels, strict=True))

    def forward(self, image: Float[Tensor, "batch c h w"]) -> list[Tensor]:
        """The feature maps of all levels, finest first; each has half the height and width of the one before."""
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            features.append(level(F.max_pool2d(features[-1], kernel_size=2)))
        return features


def check_channels(channels: Sequence[int]) -> None:
    """Raises ValueError unless `channels` is a list of positive whole numbers, from two to `MAX_LEVELS` of them."""
    whole = all(isinstance(c, int) and not isinstance(c, bool) and c > 0 for c in channels)
    if not 2 <= len(channels) <= MAX_LEVELS or not whole:
        raise ValueError(
            f"channels={list(channels)}; allowed is a list of at least two positive whole numbers, finest level first"
            f" (two levels: [32,64]), and of {MAX_LEVELS} at most"
        )


def pad_to_multiple(image: Float[Tensor, "batch c h w"], multiple: int) -> Tensor:
    """Repeats the last row and column until height and width are multiples of `multiple`."""
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return image
    return F.pad(image, (0, right, 0, bottom), mode="replicate")
