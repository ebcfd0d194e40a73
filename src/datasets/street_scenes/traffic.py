"""What moves in a synthetic street, or was left there: cars, pedestrians, cyclists and unlabelled things."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import cv2
import numpy as np

from src.datasets.street_scenes.canvas import BICYCLIST, CAR, CIRCLE, PEDESTRIAN, VOID, Canvas, disc, facing, surface_colour


def box_corners(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> np.ndarray:
    """The eight corners [8, 3] of an upright box."""
    return np.array([[i, j, k] for i in x for j in y for k in z])


def draw_hull(canvas: Canvas, corners: np.ndarray, colour: np.ndarray, label: int) -> None:
    """Fill the silhouette of a convex body."""
    outline = cv2.convexHull(canvas.project(corners).astype(np.float32))[:, 0].round().astype(np.int32)
    cv2.fillConvexPoly(canvas.image, outline, canvas.tint(colour, corners[:, 2].min()))
    cv2.fillConvexPoly(canvas.mask, outline, label)


class CarBody:
    """Maps the plan of a car (s along its length, t across its width, y up) to the world, for both headings."""

    def __init__(self, x: float, z: float, length: float, width: float, crossing: bool) -> None:
        self.x, self.z, self.length, self.width, self.crossing = x, z, length, width, crossing

    def __call__(self, s: float | np.ndarray, t: float | np.ndarray, y: float | np.ndarray) -> np.ndarray:
        """World points [n, 3] of a plan's (s, t) as shares of length and width, y in metres."""
        points = np.empty((max(np.size(s), np.size(t), np.size(y)), 3))
        points[:, 1] = y
        points[:, 0] = self.x + (s - 0.5) * self.length if self.crossing else self.x + (t - 0.5) * self.width
        points[:, 2] = self.z + t * self.width if self.crossing else self.z + s * self.length
        return points


def draw_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A car, or a taller van, whose near face stands at z; those that cross the street show their side."""
    crossing = bool(z > 7 and rng.random() < 0.15)
    van, paint, glass = rng.random() < 0.2, surface_colour(rng), rng.uniform(20, 80, 3)
    length, width, belt, top = rng.uniform(3.8, 4.8), rng.uniform(1.7, 1.95), 0.95, rng.uniform(1.4, 1.6)
    belt, top = (1.3, 2.2) if van else (belt, top)
    place = CarBody(x, z, length, width, crossing)
    front, back = (0.04, 0.96) if van else (0.14, 0.86)
    slant, inset = (0.03 if van else 0.11), 0.06
    lower = place(np.repeat([0, 1], 4), np.tile([0, 0, 1, 1], 2), np.tile([0.3, belt], 4))
    s_cabin = np.array([front, front + slant] * 2 + [back, back - slant] * 2)
    cabin = place(s_cabin, np.tile([0.02, inset, 0.98, 1 - inset], 2), np.tile([belt, top], 4))
    # The side that one sees is the one towards the camera, and it hides the wheels of the other.
    side = 0.0 if crossing or x > canvas.eye[0] else 1.0
    inner = inset if side == 0 else 1 - inset
    end = 0.0 if not crossing or x > canvas.eye[0] else 1.0
    wheels = np.array([place(s + CIRCLE[:, 0] * 0.34 / length, side, 0.34 + CIRCLE[:, 1] * 0.34) for s in (0.2, 0.8)])
    draw_hull(
        canvas,
        place(np.repeat([0.12, 0.88], 4), np.tile([0.05, 0.05, 0.95, 0.95], 2), np.tile([0, 0.4], 4)),
        np.array([25, 25, 28]),
        CAR,
    )
    draw_hull(canvas, lower, paint * 1.05, CAR)
    draw_hull(canvas, cabin, paint * 1.12, CAR)
    canvas.fill(place(np.array([0, 1, 1, 0]), side, np.array([0.3, 0.3, belt, belt])), paint * 0.72, CAR)
    edges = np.linspace(front + slant * 0.6, back - slant * 0.6, 3)
    heights = np.array([belt + 0.04, belt + 0.04, top - 0.1, top - 0.1])
    panes = [
        place(np.array([first, last - 0.02, last - 0.03, first + slant * 0.4]), (side + inner) / 2, heights)
        for first, last in itertools.pairwise(edges)
    ]
    canvas.fill(panes, glass, None)
    canvas.fill(wheels, np.array([22, 22, 24]), CAR)
    hubs = wheels.mean(axis=1, keepdims=True)
    canvas.fill(hubs + (wheels - hubs) * 0.5, rng.uniform(90, 190, 3), None)
    draw_car_end(canvas, rng, place, end, (belt, top), paint, glass)


def draw_car_end(
    canvas: Canvas,
    rng: np.random.Generator,
    place: CarBody,
    end: float,
    levels: tuple[float, float],
    paint: np.ndarray,
    glass: np.ndarray,
) -> None:
    """The end towards the camera: its face, window, lights and plate."""
    belt, top = levels
    slope = (0.14, 0.25) if belt < 1.2 else (0.04, 0.07)
    low, high = (abs(end - share) for share in slope)
    square = np.array([0, 1, 1, 0])
    canvas.fill(place(end, square, np.array([0.3, 0.3, belt, belt])), paint * 0.92, CAR)
    window = place(
        np.array([low, low, high, high]),
        np.array([0.1, 0.9, 0.84, 0.16]),
        np.array([belt + 0.03, belt + 0.03, top - 0.06, top - 0.06]),
    )
    canvas.fill(window, glass * 1.2, None)
    light = np.array(((210, 40, 40), (245, 240, 205))[rng.integers(2)])
    lights = [place(end, corner + square * 0.18, np.array([0.62, 0.62, 0.8, 0.8])) for corner in (0.04, 0.78)]
    canvas.fill(lights, light, None)
    canvas.fill(place(end, 0.36 + square * 0.28, np.array([0.42, 0.42, 0.56, 0.56])), np.array([225, 215, 170]), None)
    canvas.fill(place(end, square, np.array([0.24, 0.24, 0.36, 0.36])), np.array([40, 40, 44]), None)


def draw_pedestrian(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A walking figure, grown up or a child, some with a skirt or a bag."""
    size = rng.uniform(0.9, 1.1) * (0.7 if rng.random() < 0.15 else 1.0)
    coat, trousers, skin = (
        surface_colour(rng, vivid=0.8),
        surface_colour(rng) * 0.65,
        rng.uniform(0.4, 1.0) * np.array([225, 180, 150]),
    )
    stride, lean = rng.uniform(0.04, 0.26), rng.choice([-1, 1])

    def at(*points: Iterable) -> np.ndarray:
        return facing(x, z, np.array(points) * size)

    for foot in (-stride, stride):
        canvas.limb(at((0, 0.85), (foot * 0.6, 0.45), (foot, 0.03), (foot + 0.1 * lean, 0.03)), 0.17 * size, trousers, PEDESTRIAN)
    hem = rng.choice([0.5, 0.8])
    canvas.fill(
        at((-0.2, hem), (0.2, hem), (0.17, 1.1), (0.25, 1.42), (0.1, 1.5), (-0.1, 1.5), (-0.25, 1.42), (-0.17, 1.1)),
        coat,
        PEDESTRIAN,
    )
    for hand in (-stride, stride):
        shoulder = 0.22 * np.sign(hand)
        canvas.limb(
            at((shoulder, 1.4), (shoulder * 1.2, 1.1), (hand * 1.2 + shoulder * 0.7, 0.85)), 0.12 * size, coat * 0.8, PEDESTRIAN
        )
    if rng.random() < 0.3:
        canvas.fill(at((0.16, 0.6), (0.42, 0.6), (0.4, 0.9), (0.18, 0.9)), surface_colour(rng), PEDESTRIAN)
    canvas.fill(disc(x, 1.64 * size, z, 0.14 * size, 0.85), skin, PEDESTRIAN)
    hair = CIRCLE[:8] * (0.13, 0.15) + (0, 1.66)
    canvas.fill(facing(x, z, hair * size), rng.uniform(20, 120) * np.array([1, 0.85, 0.7]), PEDESTRIAN)


def draw_cyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A bicycle and its rider, from the side or foreshortened; the label covers the wheels' spokes too."""
    turn, size = rng.choice([-1, 1]) * rng.uniform(0.45, 1.0), rng.uniform(0.95, 1.15)
    frame, coat, trousers = surface_colour(rng), surface_colour(rng, vivid=0.8), surface_colour(rng) * 0.65
    tyre, skin = rng.uniform(10, 50, 3), rng.uniform(0.4, 1.0) * np.array([225, 180, 150])

    def at(*points: Iterable) -> np.ndarray:
        return facing(x, z, np.array(points) * (turn, 1) * size)

    for hub in (-0.52, 0.52):
        rim = at(*(CIRCLE * 0.34 + (hub, 0.36)))
        canvas.fill(rim, None, BICYCLIST)
        canvas.limb(rim, 0.075, tyre, BICYCLIST)
    canvas.limb(at((-0.52, 0.36), (-0.2, 0.85), (0.4, 0.85), (0.0, 0.36), (-0.52, 0.36)), 0.07, frame, BICYCLIST)
    canvas.limb(at((0.52, 0.36), (0.38, 1.0), (0.5, 1.05)), 0.07, frame, BICYCLIST)
    pedal = rng.uniform(0.15, 0.45)
    for foot in (pedal, 0.6 - pedal):
        canvas.limb(at((-0.18, 0.95), (0.2, 0.55 + foot * 0.4), (0.03, foot)), 0.16, trousers, BICYCLIST)
    canvas.fill(at((-0.32, 0.9), (0.0, 0.88), (0.36, 1.38), (0.22, 1.56), (0.02, 1.5)), coat, BICYCLIST)
    canvas.limb(at((0.24, 1.42), (0.32, 1.15), (0.5, 1.06)), 0.11, coat * 0.8, BICYCLIST)
    canvas.fill(disc(x + 0.33 * turn * size, 1.68 * size, z, 0.14 * size, 0.85), skin, BICYCLIST)
    helmet = CIRCLE[:8] * (0.17, 0.14) + (0.33 * turn, 1.71)
    canvas.fill(facing(x, z, helmet * size), surface_colour(rng), BICYCLIST)


def draw_unlabelled(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A bin, a crate or a cabinet: no class of ours, so void."""
    half, height, colour = rng.uniform(0.25, 0.55), rng.uniform(0.7, 1.3), surface_colour(rng)
    draw_hull(canvas, box_corners((x - half, x + half), (0.0, height), (z, z + half)), colour * 0.75, VOID)
    canvas.fill(facing(x, z, [(-half, 0), (half, 0), (half, height), (-half, height)]), colour, VOID)
    canvas.fill(facing(x, z, [(-half, height * 0.8), (half, height * 0.8), (half, height), (-half, height)]), colour * 0.6, VOID)
