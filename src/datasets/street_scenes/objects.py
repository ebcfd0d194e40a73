"""What stands in a synthetic street: houses, trees, posts, signs and fences, drawn in perspective."""

from __future__ import annotations

import numpy as np

from src.datasets.street_scenes.canvas import BUILDING, CIRCLE, FENCE, POLE, SIGN, TREE, Canvas, disc, facing, surface_colour


def grid_on_wall(
    corner: np.ndarray, along: np.ndarray, length: float, height: float, pitch: tuple[float, float], share: tuple[float, float]
) -> np.ndarray:
    """Window quads [m, 4, 3] in rows and columns on a wall that starts at `corner` and runs along a unit vector."""
    columns, rows = max(1, int(length / pitch[0])), max(1, int((height - 0.6) / pitch[1]))
    step = length / columns
    left = (np.arange(columns) + (1 - share[0]) / 2) * step
    bottom = 0.9 + np.arange(rows) * pitch[1]
    left, bottom = (grid.ravel() for grid in np.meshgrid(left, bottom))
    s = left[:, None] + np.array([0, 1, 1, 0]) * step * share[0]
    t = bottom[:, None] + np.array([0, 0, 1, 1]) * pitch[1] * share[1]
    return corner + s[..., None] * along + t[..., None] * np.array([0.0, 1.0, 0.0])


def draw_building(canvas: Canvas, rng: np.random.Generator, x: float, near: float, far: float, sun: float, exposed: bool) -> None:
    """A house whose street wall stands at x from `near` to `far`; its gable, with windows if exposed, faces the camera."""
    side, height, colour = np.sign(x - canvas.eye[0]), rng.uniform(4.5, 14), surface_colour(rng)
    depth, roof = side * rng.uniform(5, 9), rng.uniform(0, 2.5)
    lit, gable = (1.0, 0.78) if side * sun > 0 else (0.7, 0.9)
    top, roof_colour = height + roof, surface_colour(rng) * 0.8
    canvas.fill(
        [[x, height, near], [x, height, far], [x + depth / 2, top, far], [x + depth / 2, top, near]], roof_colour, BUILDING
    )
    canvas.fill(
        [[x, 0, near], [x + depth, 0, near], [x + depth, height, near], [x + depth / 2, top, near], [x, height, near]],
        colour * gable,
        BUILDING,
    )
    canvas.fill([[x, 0, near], [x, 0, far], [x, height, far], [x, height, near]], colour * lit, BUILDING)
    pane, frame = rng.uniform(20, 90, 3) * (0.8, 0.9, 1), np.clip(colour * rng.choice([0.55, 1.5]), 0, 245)
    pitch, share = (rng.uniform(1.8, 3.2), rng.uniform(2.4, 3.2)), (rng.uniform(0.4, 0.65), rng.uniform(0.45, 0.65))
    walls = [(np.array([x, 0, near]), np.array([0.0, 0, 1]), far - near, height)]
    if exposed:
        walls.append((np.array([x, 0, near - 0.01]), np.array([side, 0.0, 0]), abs(depth), height))
    for corner, along, length, tall in walls:
        panes = grid_on_wall(corner, along, length, tall, pitch, share)
        centres = panes.mean(axis=1, keepdims=True)
        canvas.fill(centres + (panes - centres) * 1.25, frame, None)
        canvas.fill(panes, pane, None)
    door = near + (far - near) * rng.uniform(0.1, 0.8)
    canvas.fill([[x, 0, door], [x, 0, door + 1.2], [x, 2.2, door + 1.2], [x, 2.2, door]], surface_colour(rng) * 0.6, None)


def draw_front(canvas: Canvas, rng: np.random.Generator, left: float, right: float, z: float) -> None:
    """A house across the end of the street, its front towards the camera."""
    height, colour = rng.uniform(4, 13), surface_colour(rng)
    canvas.fill(facing(0.0, z, [(left, 0), (right, 0), (right, height), (left, height)]), colour, BUILDING)
    canvas.fill(
        facing(0.0, z, [(left, height), (right, height), (right - 1, height + 1.5), (left + 1, height + 1.5)]),
        surface_colour(rng) * 0.7,
        BUILDING,
    )
    pitch = (rng.uniform(2.2, 3.5), rng.uniform(2.6, 3.3))
    windows = grid_on_wall(np.array([left, 0, z]), np.array([1.0, 0, 0]), right - left, height, pitch, (0.55, 0.55))
    canvas.fill(windows, rng.uniform(20, 90, 3), None)


def draw_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A trunk and a crown of overlapping clumps, lighter towards the top."""
    kind, height = rng.random(), rng.uniform(3.2, 7.5)
    green = np.array([rng.uniform(40, 110), rng.uniform(80, 140), rng.uniform(25, 70)])
    autumn = np.array([rng.uniform(120, 200), rng.uniform(70, 130), rng.uniform(30, 80)])
    leaf = green if kind < 0.75 else autumn if kind < 0.92 else surface_colour(rng)
    spread, bark = height * rng.uniform(0.2, 0.34), rng.uniform(40, 110) * np.array([1.1, 0.95, 0.8])
    base = height - 2 * spread if rng.random() < 0.8 else 0.2
    canvas.limb([[x, 0, z], [x + rng.normal(0, 0.1), base + spread, z]], rng.uniform(0.22, 0.45), bark, TREE)
    clumps = rng.normal(0, 0.42, (14, 2)).clip(-1, 1)
    clumps = clumps[np.argsort(clumps[:, 1])]
    radii = spread * rng.uniform(0.35, 0.6, (len(clumps), 1)) * rng.uniform((0.8, 1), (1.3, 1), (len(clumps), 2))
    shades = 0.72 + 0.15 * (clumps[:, 1] + 1) + rng.uniform(-0.12, 0.12, len(clumps))
    centres = np.column_stack([clumps * spread + (x, base + spread), np.full(len(clumps), z)])
    canvas.discs(centres, radii, leaf * shades[:, None], TREE)


def draw_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A lamp post with an arm over the road."""
    height, colour, arm = rng.uniform(4, 7), surface_colour(rng, vivid=0.15) * 0.7, rng.uniform(0.6, 1.6) * -np.sign(x or 1)
    width = rng.uniform(0.22, 0.34)
    canvas.limb([[x, 0, z], [x, 0.9, z]], width * 1.4, colour * 0.85, POLE)
    canvas.limb([[x, 0, z], [x, height, z], [x + arm, height + 0.25, z]], width, colour, POLE)
    canvas.fill(disc(x + arm, height + 0.2, z, 0.16, 2.5), colour * 1.1, POLE)


def draw_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A post with a traffic light or a board of one of the usual shapes."""
    height, post = rng.uniform(2.3, 3.4), surface_colour(rng, vivid=0.15) * 0.7
    canvas.limb([[x, 0, z], [x, height, z]], rng.uniform(0.18, 0.26), post, POLE)
    if rng.random() < 0.4:
        box = np.array([(-0.28, -0.75), (0.28, -0.75), (0.28, 0.75), (-0.28, 0.75)]) + np.array((0, height))
        canvas.fill(facing(x, z, box), rng.uniform(15, 70, 3), SIGN)
        lights = ((220, 50, 40), (230, 170, 40), (50, 200, 90))
        on = rng.integers(3)
        for row, light in enumerate(lights):
            glow = 1.1 if row == on else 0.45
            canvas.fill(disc(x, height + 0.48 - 0.48 * row, z, 0.19), np.array(light) * glow, SIGN)
        return
    size, outer, inner = rng.uniform(0.45, 0.65), surface_colour(rng), rng.uniform(170, 245, 3)
    if rng.random() < 0.8:
        outer = np.array(((200, 40, 40), (40, 80, 180), (40, 120, 70), (220, 190, 50))[rng.integers(4)])
    shapes = (CIRCLE, np.array([(-1, -0.8), (1, -0.8), (0, 0.95)]), np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]))
    shape = shapes[rng.integers(3)] * size + (0, height)
    canvas.fill(facing(x, z, shape), outer, SIGN)
    canvas.fill(facing(x, z, (shape - (0, height)) * 0.66 + (0, height)), inner, SIGN)
    canvas.limb([[x - size * 0.35, height, z], [x + size * 0.35, height, z]], 0.14, outer * 0.5, SIGN)


def fence_colour(rng: np.random.Generator) -> np.ndarray:
    """White, brown and dark green are usual, everything else is allowed."""
    usual = ((225, 222, 215), (125, 85, 55), (45, 75, 55), (50, 50, 55))
    return np.array(usual[rng.integers(4)]) * rng.uniform(0.8, 1.1) if rng.random() < 0.6 else surface_colour(rng)


def draw_fence(canvas: Canvas, rng: np.random.Generator, start: np.ndarray, end: np.ndarray) -> None:
    """Bars that one sees through, or boards, between two points on the ground; the label covers the gaps too."""
    height, colour, pitch = rng.uniform(1.2, 2.1), fence_colour(rng), rng.uniform(0.3, 0.5)
    up, boards = np.array([0, height, 0]), rng.random() < 0.3
    outline = np.array([start, end, end + up, start + up])
    canvas.fill(outline, colour * 0.45 if boards else None, FENCE)
    count = max(2, int(np.linalg.norm(end - start) / pitch))
    places = (np.arange(count)[:, None] + np.array([0, 1, 1, 0]) * (0.75 if boards else 0.4)) / count
    bars = start + places[..., None] * (end - start) + np.array([0, 0, 1, 1])[:, None] * up
    canvas.fill(bars, colour, None)
    for level in (0.18, 0.85):
        rail = [start + up * level, end + up * level, end + up * (level + 0.1), start + up * (level + 0.1)]
        canvas.fill(rail, colour * 0.85, None)
