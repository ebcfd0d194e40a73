"""The networks of the original script and of LeeJunHyun's Image_Segmentation, written from their descriptions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ConvBlock(nn.Module):
    def __init__(self, ch_in: int, ch_out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(ch_in, ch_out, 3, stride=1, padding=1, bias=True), nn.BatchNorm2d(ch_out), nn.ReLU(inplace=True),
            nn.Conv2d(ch_out, ch_out, 3, stride=1, padding=1, bias=True), nn.BatchNorm2d(ch_out), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class OriginalUpConv(nn.Module):
    def __init__(self, ch_in: int, ch_out: int, conv_transpose: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(ch_in, ch_in, 4, 2, 1) if conv_transpose else nn.Upsample(scale_factor=2)
        self.Conv = nn.Sequential(
            nn.Conv2d(ch_in, ch_out, 3, stride=1, padding=1, bias=True), nn.BatchNorm2d(ch_out), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv(self.up(x))


class LeeJunHyunUpConv(nn.Module):
    def __init__(self, ch_in: int, ch_out: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(ch_in, ch_out, 3, stride=1, padding=1, bias=True), nn.BatchNorm2d(ch_out), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class OriginalGate(nn.Module):
    def __init__(self, f_g: int, f_l: int, f_int: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv2d(f_g, f_int, 1), nn.BatchNorm2d(f_int))
        self.W_x = nn.Sequential(nn.Conv2d(f_l, f_int, 1), nn.BatchNorm2d(f_int))
        self.psi = nn.Sequential(nn.Conv2d(f_int, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * self.psi(self.relu(self.W_g(g) + self.W_x(x)))


class OriginalAttUNet(nn.Module):
    """The original script's network, plainly; `variant` is how it doubles, or LeeJunHyun's form.

    The original gives its third gate (Att3) 64 hidden channels for any widths; by default here half of its skip connection's,
    the same at the original's own widths.
    """

    def __init__(self, variant: str, widths: Sequence[int], num_classes: int, att3: int | None = None) -> None:
        super().__init__()
        c = widths

        def up(ch_in: int, ch_out: int) -> nn.Module:
            if variant == "leejunhyun":
                return LeeJunHyunUpConv(ch_in, ch_out)
            return OriginalUpConv(ch_in, ch_out, variant == "transpose")

        self.Maxpool = nn.MaxPool2d(2, 2)
        self.Conv1, self.Conv2, self.Conv3 = ConvBlock(3, c[0]), ConvBlock(c[0], c[1]), ConvBlock(c[1], c[2])
        self.Conv4, self.Conv5 = ConvBlock(c[2], c[3]), ConvBlock(c[3], c[4])
        self.Up5, self.Att5, self.Up_conv5 = up(c[4], c[3]), OriginalGate(c[3], c[3], c[2]), ConvBlock(c[4], c[3])
        self.Up4, self.Att4, self.Up_conv4 = up(c[3], c[2]), OriginalGate(c[2], c[2], c[1]), ConvBlock(c[3], c[2])
        self.Up3, self.Att3, self.Up_conv3 = up(c[2], c[1]), OriginalGate(c[1], c[1], att3 or c[1] // 2), ConvBlock(c[2], c[1])
        self.Up2, self.Att2, self.Up_conv2 = up(c[1], c[0]), OriginalGate(c[0], c[0], c[0] // 2), ConvBlock(c[1], c[0])
        self.Conv_1x1 = nn.Conv2d(c[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.Conv1(x)
        x2 = self.Conv2(self.Maxpool(x1))
        x3 = self.Conv3(self.Maxpool(x2))
        x4 = self.Conv4(self.Maxpool(x3))
        x5 = self.Conv5(self.Maxpool(x4))
        d5 = self.Up5(x5)
        d5 = self.Up_conv5(torch.cat((self.Att5(g=d5, x=x4), d5), dim=1))
        d4 = self.Up4(d5)
        d4 = self.Up_conv4(torch.cat((self.Att4(g=d4, x=x3), d4), dim=1))
        d3 = self.Up3(d4)
        d3 = self.Up_conv3(torch.cat((self.Att3(g=d3, x=x2), d3), dim=1))
        d2 = self.Up2(d3)
        d2 = self.Up_conv2(torch.cat((self.Att2(g=d2, x=x1), d2), dim=1))
        return self.Conv_1x1(d2)
