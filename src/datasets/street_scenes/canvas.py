"""The canvas of the synthetic street scenes: one image and its mask behind one pinhole camera.

Positions are metres in the world (x to the right, y up from the ground, z into the picture). Every stroke
goes to the image and to the mask in one call, so that the two cannot drift apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(12)

CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 14)), np.sin(np.linspace(0, 2 * np.pi, 14))], axis=1)
SUBPIXEL_BITS = 4


@dataclass
class Canvas:
    """One image and its mask, seen through one pinhole camera (lengths in metres, places in pixels)."""

    image: np.ndarray
    mask: np.ndarray
    focal: float
    vanishing: tuple[float, float]
    eye: tuple[float, float]
    roll: float
    haze: np.ndarray
    sight: float

    def __post_init__(self) -> None:
        # One matrix for the camera: [x, y, z] @ matrix + offset = [column * z, row * z, z], roll included.
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        middle = np.array([self.image.shape[1], self.image.shape[0]]) / 2
        turn = np.array([[cos, sin], [-sin, cos]])  # rows: where one step across and one step down lead
        vanishing = (np.array(self.vanishing) - middle) @ turn + middle
        self._matrix = np.zeros((3, 3))
        self._matrix[:2, :2] = self.focal * turn * [[1], [-1]]
        self._matrix[2] = [*vanishing, 1]
        self._offset = np.array([-self.eye[0], -self.eye[1], 0]) @ self._matrix

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points [..., 3], all in front of the camera (z > 0), to pixels (column, row) [..., 2]."""
        scaled = points @ self._matrix + self._offset
        return scaled[..., :2] / scaled[..., 2:]

    def tint(self, colour: np.ndarray, depth: float) -> list[float]:
        """The colour after the haze between it and the camera."""
        clear = math.exp(-depth / self.sight)
        return (self.haze + (colour - self.haze) * clear).tolist()

    def fill(self, points: np.ndarray | list, colour: np.ndarray | None, label: int | None) -> None:
        """Fill one world polygon [n, 3] or several [m, n, 3]; None leaves the image or the mask as it is."""
        points = np.asarray(points, dtype=np.float64)
        depth = (points.item(2) + points.item(8)) / 2  # of the first and the third corner: they lie across
        pixels = np.rint(self.project(points) * 2**SUBPIXEL_BITS).astype(np.int32)
        outlines = list(pixels) if pixels.ndim == 3 else [pixels]
        if colour is not None:
            cv2.fillPoly(self.image, outlines, self.tint(colour, depth), cv2.LINE_8, SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self.mask, outlines, label, cv2.LINE_8, SUBPIXEL_BITS)

    def discs(self, centres: np.ndarray, radii: np.ndarray, colours: np.ndarray, label: int) -> None:
        """Fill ellipses that face the camera, in order: centres [n, 3], half width and height [n, 2], colours [n, 3]."""
        depth = float(centres[0, 2])
        places = np.rint(self.project(centres) * 2**SUBPIXEL_BITS).astype(int).tolist()
        axes = np.rint(radii * (self.focal / depth * 2**SUBPIXEL_BITS)).astype(int).tolist()
        tints = (self.haze + (colours - self.haze) * math.exp(-depth / self.sight)).tolist()
        for place, axis, tint in zip(places, axes, tints, strict=True):
            for layer, value in ((self.image, tint), (self.mask, label)):
                cv2.ellipse(layer, place, axis, 0, 0, 360, value, cv2.FILLED, cv2.LINE_8, SUBPIXEL_BITS)

    def limb(self, points: np.ndarray | list, width: float, colour: np.ndarray, label: int | None) -> None:
        """Stroke a world line [n, 3] that is `width` metres thick."""
        points = np.asarray(points, dtype=np.float64)
        thickness = max(1, round(width * self.focal / points[0, 2]))
        pixels = [np.rint(self.project(points)).astype(np.int32)]
        cv2.polylines(self.image, pixels, False, self.tint(colour, points[0, 2]), thickness)
        if label is not None:
            cv2.polylines(self.mask, pixels, False, label, thickness)


def surface_colour(rng: np.random.Generator, vivid: float = 0.4) -> np.ndarray:
    """One distribution for walls, cars, clothes and boards: colour must not name the class.

    `vivid` is the share that is more than a tinted grey.
    """
    colour = rng.uniform(45, 215) + rng.normal(0, 10, 3)
    if rng.random() < vivid:
        hue, saturation = rng.random(), rng.uniform(0.1, 0.5)
        wave = np.cos(2 * np.pi * (hue - np.array([0, 1, 2]) / 3)) * 0.5 + 0.5
        colour = colour * (1 - saturation + saturation * wave * 1.4)
    return np.clip(colour, 15, 240)


def facing(x: float, z: float, outline: list | np.ndarray) -> np.ndarray:
    """World points of a flat shape that faces the camera: outline [n, 2] of (metres beside x, metres up)."""
    outline = np.asarray(outline, dtype=np.float64)
    points = np.empty((len(outline), 3))
    points[:, 0], points[:, 1], points[:, 2] = x + outline[:, 0], outline[:, 1], z
    return points


def disc(x: float, y: float, z: float, radius: float, aspect: float = 1.0) -> np.ndarray:
    """World points of a disc that faces the camera; aspect is its width over its height."""
    return facing(x, z, CIRCLE * (radius * aspect, radius) + (0, y))
