"""Synthetic street scenes with CamVid's eleven classes: one seed and one number give one image and its mask.

The scenes are made so that colour and place say little: walls, cars, clothes and boards draw from one
distribution of colours, the greys of road, pavement, walls and sky overlap, and the horizon, the vanishing
point and the light change from scene to scene. Shape, texture and context tell the classes apart: windows,
wheels, bars, leaves, kerbs. `src/datasets/baselines.py` measures how little colour and place are worth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from src.datasets.street_scenes import objects, traffic
from src.datasets.street_scenes.backdrop import Street, Thing, draw_ground, draw_shadows, draw_sky, draw_walls, soft_noise
from src.datasets.street_scenes.canvas import BICYCLIST, CAR, PEDESTRIAN, SKY, VOID, Canvas, surface_colour

# Drawn at twice the size and averaged, which smooths the edges of the image; the mask takes every second pixel.
OVERSAMPLING = 2
SMALLEST_SIDE = 32

# How rough each class looks (share of its brightness): leaves in clumps, asphalt and stone in grains.
CLUMPS = np.array([0, 0.05, 0.03, 0.05, 0.05, 0.4, 0, 0.05, 0, 0, 0, 0.05], dtype=np.float32)
GRAINS = np.array([0, 0.04, 0.03, 0.14, 0.07, 0.18, 0.02, 0.05, 0.02, 0.03, 0.03, 0.04], dtype=np.float32)


class Kind(NamedTuple):
    """How many of a kind a scene has, how far off and where they stand; distances and shadow radius in metres."""

    draw: Callable[[Canvas, np.random.Generator, float, float], None]
    fewest: int
    most: int
    near: float
    far: float
    place: str
    radius: float


POPULATION = (
    Kind(objects.draw_tree, 0, 3, 6.0, 30.0, "kerbs", 1.2),
    Kind(objects.draw_lamp, 1, 3, 5.0, 20.0, "kerbs", 0.3),
    Kind(objects.draw_sign, 1, 3, 3.5, 8.0, "kerbs", 0.3),
    Kind(traffic.draw_car, 0, 4, 5.5, 20.0, "road", 1.3),
    Kind(traffic.draw_pedestrian, 0, 4, 3.5, 9.0, "both", 0.35),
    Kind(traffic.draw_cyclist, 0, 3, 3.5, 9.0, "both", 0.5),
    Kind(traffic.draw_unlabelled, 0, 2, 4.0, 14.0, "kerbs", 0.5),
)


def render_scene(seed: int, index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Render the scene that (seed, index) name; nothing else decides what is in it.

    Args:
        seed: Names the data set, 0 or more.
        index: Names the scene in it, 0 or more.
        height: Rows of the result in pixels, 32 or more.
        width: Columns of the result in pixels, 32 or more.

    Returns:
        The image, uint8 [height, width, 3] in RGB, and its mask, uint8 [height, width]: 0 to 10 as in CamVid, 11 void.

    Raises:
        ValueError: If the seed or the index is negative, or a side too short.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed {seed} and index {index} must both be 0 or more")
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"a street scene of {height}x{width} pixels is too small to show anything; "
            f"ask for {SMALLEST_SIDE}x{SMALLEST_SIDE} or more"
        )
    rng = np.random.default_rng([seed, index])
    canvas, street = set_up(rng, height * OVERSAMPLING, width * OVERSAMPLING)
    things = place_things(canvas, street, rng)
    draw_sky(canvas, rng)
    draw_ground(canvas, street, rng)
    draw_shadows(canvas, street, things, rng)
    draw_walls(canvas, street, rng)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.draw()
    if rng.random() < 0.3:
        draw_bonnet(canvas, rng)
    return develop(canvas, rng, height, width)


def set_up(rng: np.random.Generator, rows: int, columns: int) -> tuple[Canvas, Street]:
    """Choose the camera and the plan of the street."""
    left, right, eye = -rng.uniform(2.5, 6), rng.uniform(2.5, 6), rng.uniform(1.3, 2.8)
    horizon = rng.uniform(0.18, 0.7)
    canvas = Canvas(
        image=np.zeros((rows, columns, 3), dtype=np.uint8),
        mask=np.full((rows, columns), SKY, dtype=np.uint8),
        focal=max(rows, columns) * rng.uniform(0.7, 1.15),
        vanishing=(columns * rng.uniform(0.1, 0.9), rows * horizon),
        eye=(rng.uniform(left - 1.2, right + 1.2), eye),
        roll=rng.normal(0, 0.05),
        haze=rng.uniform(110, 235) + rng.normal(0, 15, 3),
        sight=rng.uniform(60, 300),
    )
    end = rng.uniform(28, 55) if rng.random() < 0.4 else rng.uniform(70, 110)
    return canvas, Street(left, right, left - rng.uniform(2, 5), right + rng.uniform(2, 5), end, rng.choice([-1.0, 1.0]))


def place_things(canvas: Canvas, street: Street, rng: np.random.Generator) -> list[Thing]:
    """Put posts, trees, vehicles and people where the camera sees them, and a fence along a kerb now and then."""
    kerbs = [(street.left_wall + 0.6, street.left_kerb - 0.3), (street.right_kerb + 0.3, street.right_wall - 0.6)]
    road = [(street.left_kerb + 1.0, street.right_kerb - 1.0)]
    lanes = {"kerbs": kerbs, "road": road, "both": kerbs + road}
    things = []
    for kind in POPULATION:
        for _ in range(rng.integers(kind.fewest, kind.most + 1)):
            # Even in 1/z: as many near as far in the picture.
            z = 1 / rng.uniform(1 / kind.far, 1 / kind.near)
            x = visible_place(canvas, rng, lanes[kind.place], z)
            things.append(Thing(x, z, kind.radius, partial(kind.draw, canvas, rng, x, z)))
    if rng.random() < 0.5:
        kerb = rng.choice([street.left_kerb - 0.3, street.right_kerb + 0.3])
        start = rng.uniform(2, 9)
        ends = np.array([[kerb, 0, start], [kerb, 0, start + rng.uniform(3, 12)]])
        things.append(Thing(kerb, start, 0.3, partial(objects.draw_fence, canvas, rng, *ends)))
    return things


def visible_place(canvas: Canvas, rng: np.random.Generator, lanes: list[tuple[float, float]], z: float) -> float:
    """A place across the street in one of the lanes, inside the picture if one of a few tries is."""
    x = 0.0
    for _ in range(6):
        left, right = lanes[rng.integers(len(lanes))]
        x = rng.uniform(min(left, right), max(left, right))
        column = canvas.vanishing[0] + (x - canvas.eye[0]) * canvas.focal / z
        if 0.06 < column / canvas.mask.shape[1] < 0.94:
            break
    return x


def draw_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """The bonnet of the car that carries the camera: void, as no class of ours."""
    rows, columns = canvas.mask.shape
    centre = (int(columns * rng.uniform(0.35, 0.65)), int(rows * 1.06))
    axes, paint = (int(columns * rng.uniform(0.35, 0.6)), int(rows * rng.uniform(0.12, 0.2))), surface_colour(rng)
    cv2.ellipse(canvas.mask, centre, axes, 0, 0, 360, VOID, cv2.FILLED)
    for share, light in ((1.0, 0.6), (0.93, 0.8), (0.7, 1.0)):
        inner = (int(axes[0] * share), int(axes[1] * share))
        cv2.ellipse(canvas.image, centre, inner, 0, 0, 360, (paint * light).tolist(), cv2.FILLED)


def outline_movers(mask: np.ndarray) -> None:
    """Leave the rim around vehicles and people void, as annotators do, in place."""
    movers = np.isin(mask, (CAR, PEDESTRIAN, BICYCLIST)).astype(np.uint8)
    rim = cv2.dilate(movers, np.ones((3, 3), np.uint8)) - movers
    mask[rim > 0] = VOID


def develop(canvas: Canvas, rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Texture, light, lens and sensor: from the drawn canvas to a photograph and its mask."""
    shape = canvas.mask.shape
    clumps = soft_noise(rng, shape, rng.uniform(4, 7))
    grains = soft_noise(rng, shape, 2.0)
    texture = 1 + CLUMPS[canvas.mask] * clumps + GRAINS[canvas.mask] * grains
    image = np.empty((*shape, 3), dtype=np.float32)
    np.multiply(canvas.image, texture[..., None], out=image)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    mask = np.ascontiguousarray(canvas.mask[::OVERSAMPLING, ::OVERSAMPLING])
    if rng.random() < 0.5:
        outline_movers(mask)
    light = rng.uniform(0.75, 1.2) * np.clip(rng.normal(1, 0.05, 3), 0.85, 1.15)
    glow = 1 + rng.uniform(0, 0.2) * soft_noise(rng, (height, width), max(height, width) / 2)
    image = cv2.pow(image * glow[..., None] * np.float32(light / 128), rng.uniform(0.85, 1.25)) * 128 + rng.uniform(-8, 20)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.75))
    noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    image = image + noise * rng.uniform(1.5, 5.5)
    return np.clip(image, 0, 255).astype(np.uint8), mask
