"""What surrounds a synthetic street: its sky, ground, shadows and rows of houses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from src.datasets.street_scenes import objects
from src.datasets.street_scenes.canvas import CIRCLE, PAVEMENT, ROAD, SKY, Canvas, surface_colour


@dataclass
class Street:
    """Where things may stand, in metres: kerbs, house lines and the end of the street."""

    left_kerb: float
    right_kerb: float
    left_wall: float
    right_wall: float
    end: float
    sun: float


@dataclass
class Thing:
    """Something that stands on the ground at (x, z); `radius` is half the width of its shadow."""

    x: float
    z: float
    radius: float
    draw: Callable[[], None]


class Lot(NamedTuple):
    """A stretch of one side of the street, in metres; a house is exposed where no house hides its gable."""

    start: float
    stop: float
    garden: bool
    exposed: bool


def soft_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise in -1..1, float32 [rows, columns]; `cell` is the size of its lumps in pixels."""
    coarse = rng.random((int(shape[0] / cell) + 2, int(shape[1] / cell) + 2), dtype=np.float32) * 2 - 1
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def draw_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """A gradient from zenith to horizon under clouds: blue, grey, white, or the colours of dusk."""
    rows, columns = canvas.mask.shape
    zeniths = ((70, 130, 205), (95, 155, 220), (165, 170, 175), (215, 215, 215), (205, 150, 110), (120, 120, 150))
    zenith = np.array(zeniths[rng.integers(len(zeniths))]) * rng.uniform(0.8, 1.1) + rng.normal(0, 10, 3)
    slope = np.clip(np.arange(rows) / max(canvas.vanishing[1], 1), 0, 1)[:, None, None]
    sky = (zenith * (1 - slope) + canvas.haze * slope).astype(np.float32)
    clouds = soft_noise(rng, (rows, columns), rows / 6) + 0.5 * soft_noise(rng, (rows, columns), rows / 16)
    cover = np.clip(clouds * np.float32(rng.uniform(0.3, 1.2)) + np.float32(rng.uniform(-0.5, 0.4)), 0, 0.85)[..., None]
    canvas.image[:] = np.clip(sky + (np.float32(rng.uniform(120, 245)) - sky) * cover, 0, 255)


def strip(left: float, right: float, start: float, stop: float) -> np.ndarray:
    """A rectangle on the ground, [4, 3]."""
    return np.array([[left, 0, start], [right, 0, start], [right, 0, stop], [left, 0, stop]])


def draw_ground(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """Pavement from wall to wall, the road between its kerbs, slabs and lane marks."""
    far, wide = street.end, 60.0
    asphalt = np.clip(rng.uniform(60, 140) + rng.normal(0, 4, 3), 20, 220)
    warm = np.array([1.04, 1.0, 0.93])
    usual = np.clip(asphalt * rng.uniform(1.15, 1.75) * warm, 20, 225)
    stone = surface_colour(rng) if rng.random() < 0.25 else usual
    mark, kerb = np.clip(asphalt * rng.uniform(1.25, 1.9), 0, 245), np.clip(stone * rng.choice([0.7, 1.3]), 0, 240)
    canvas.fill(strip(-wide, wide, 0.5, far), stone, PAVEMENT)
    slab = rng.uniform(0.8, 1.4)
    joints = np.arange(1.0, min(far, 30), slab)
    canvas.fill(np.array([strip(-wide, wide, z, z + 0.07) for z in joints]), stone * 0.78, None)
    for line in np.concatenate([street.left_kerb - np.arange(1, 5) * slab, street.right_kerb + np.arange(1, 5) * slab]):
        canvas.fill(strip(line - 0.035, line + 0.035, 0.5, far), stone * 0.78, None)
    canvas.fill(strip(street.left_kerb - 0.25, street.right_kerb + 0.25, 0.5, far), kerb, PAVEMENT)
    canvas.fill(strip(street.left_kerb, street.right_kerb, 0.5, far), asphalt, ROAD)
    middle, dash = (street.left_kerb + street.right_kerb) / 2, rng.uniform(1.5, 4)
    dashes = np.arange(rng.uniform(1, 3), far, dash * 2)
    if rng.random() < 0.8:
        canvas.fill(np.array([strip(middle - 0.08, middle + 0.08, z, z + dash) for z in dashes]), mark, None)
    if rng.random() < 0.5:
        for line in (street.left_kerb + 0.4, street.right_kerb - 0.4):
            canvas.fill(strip(line - 0.06, line + 0.06, 0.5, far), mark, None)
    if rng.random() < 0.25:
        stop = rng.uniform(5, 14)
        bars = np.arange(street.left_kerb + 0.3, street.right_kerb - 0.5, 1.0)
        canvas.fill(np.array([strip(bar, bar + 0.5, stop, stop + 2.5) for bar in bars]), mark, None)


def draw_shadows(canvas: Canvas, street: Street, things: list[Thing], rng: np.random.Generator) -> None:
    """Darken the ground beneath things, and where the houses on the sunny side stand in the light."""
    shade = np.full(canvas.mask.shape, 255, dtype=np.uint8)
    outlines = []
    if rng.random() < 0.6:
        edge = rng.uniform(street.left_wall, street.right_wall)
        wall = street.left_wall if street.sun < 0 else street.right_wall
        start = rng.uniform(0.5, 8)
        stop = start + rng.uniform(6, 40)
        outlines.append(np.array([[wall, 0, start], [edge, 0, start], [edge, 0, stop], [wall, 0, stop]]))
    for thing in things:
        shift = -street.sun * thing.radius * 0.7
        ring = CIRCLE * (thing.radius * 1.4, thing.radius)
        outlines.append(np.column_stack([thing.x + shift + ring[:, 0], np.zeros(len(ring)), thing.z + 0.3 + ring[:, 1]]))
    depth = int(rng.uniform(90, 190))
    for outline in outlines:
        cv2.fillPoly(shade, [np.round(canvas.project(outline)).astype(np.int32)], depth)
    shade[canvas.mask == SKY] = 255
    canvas.image[:] = cv2.multiply(canvas.image, cv2.cvtColor(cv2.blur(shade, (5, 5)), cv2.COLOR_GRAY2RGB), scale=1 / 255)


def draw_walls(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """What closes the street, then both rows of houses with gaps of fence and trees, far before near."""
    left = street.left_wall - 40
    while left < street.right_wall + 40:
        right = left + rng.uniform(8, 18)
        if rng.random() < 0.8:
            objects.draw_front(canvas, rng, left, right, street.end)
        else:
            objects.draw_tree(canvas, rng, (left + right) / 2, street.end)
        left = right
    for wall in (street.left_wall, street.right_wall):
        for lot in reversed(plan_lots(street, rng)):
            draw_lot(canvas, street, rng, wall, lot)


def plan_lots(street: Street, rng: np.random.Generator) -> list[Lot]:
    """Divide one side of the street from the camera to its end."""
    lots: list[Lot] = []
    start, share_of_gardens = rng.uniform(0.6, 4), rng.choice([0.8, 0.3], p=[0.25, 0.75])
    while start < min(street.end, 60):
        stop = start + rng.uniform(6, 15) * (1 + start / 60)
        exposed = not lots or lots[-1].garden
        lots.append(Lot(start, min(stop, street.end), bool(rng.random() < share_of_gardens), exposed))
        start = stop
    return lots


def draw_lot(canvas: Canvas, street: Street, rng: np.random.Generator, wall: float, lot: Lot) -> None:
    """A house, or a garden with trees behind its fence."""
    column = canvas.project(np.array([wall, canvas.eye[1], lot.stop]))[0] / canvas.mask.shape[1]
    if not -0.15 < column < 1.15:
        return  # the far end is the one nearest to the middle of the picture
    if not lot.garden:
        objects.draw_building(canvas, rng, wall, lot.start, lot.stop, street.sun, lot.exposed)
        return
    side = np.sign(wall - canvas.eye[0])
    for z in sorted(rng.uniform(lot.start, lot.stop, rng.integers(0, 3)), reverse=True):
        objects.draw_tree(canvas, rng, wall + side * rng.uniform(1.5, 5), max(z, 3.0))
    objects.draw_fence(canvas, rng, np.array([wall, 0, max(lot.start, 1.0)]), np.array([wall, 0, lot.stop]))
