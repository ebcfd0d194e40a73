"""Whether ids are named rightly: CamVid's classes are known by how frequent they are and how high in the image they lie.

A permutation of the ids changes neither the shares nor the heights, only what they are called. Where another order of the names
fits CamVid much better than the given one, the names are wrong. Images are not looked at.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from src.datasets.label_tables import CAMVID11
from src.datasets.labels import LabelSet

NAMES = [label.name for label in CAMVID11]
ORDERS = {"SegNet's": NAMES, "alphabetical": sorted(NAMES)}  # in use

# Of SegNet's train, val, test and all three, a row each, the classes in the order of CAMVID11. Share in percent of the pixels
# that are no void; height in percent of the image from its top, the mean over the class's pixels. Measured by
#   split = audit_split(CamVid.source(ROOT), "train", Problems()); measure_profile(split.masks, range(11))
SHARES = np.array(
    [
        [17.54, 24.21, 1.02, 32.96, 4.67, 10.12, 1.22, 1.17, 6.11, 0.67, 0.30],
        [9.34, 26.41, 0.57, 29.46, 8.87, 16.62, 0.91, 3.13, 1.78, 0.66, 2.26],
        [17.75, 25.59, 1.22, 26.84, 9.64, 11.70, 1.05, 1.23, 4.13, 0.66, 0.20],
        [16.40, 24.99, 1.02, 30.41, 6.93, 11.60, 1.12, 1.48, 4.82, 0.66, 0.56],
    ]
)
HEIGHTS = np.array(
    [
        [16.3, 32.8, 41.8, 81.4, 71.2, 31.3, 38.3, 55.2, 60.1, 55.5, 61.3],
        [15.0, 35.1, 44.0, 82.1, 74.4, 22.5, 27.4, 47.3, 60.2, 54.2, 59.5],
        [16.7, 36.1, 42.9, 81.4, 75.7, 29.8, 31.6, 55.8, 63.8, 59.0, 65.3],
        [16.4, 34.3, 42.4, 81.5, 73.9, 29.0, 34.9, 52.9, 61.2, 56.5, 60.7],
    ]
)


class Scale(NamedTuple):
    """How far a class may be from its known profile.

    Attributes:
        log_share: Of the natural logarithm of its share.
        height: Of its mean height, in percent of the image.
        least_share: Rarer classes are not looked at, in percent of the pixels.
    """

    log_share: float
    height: float
    least_share: float


# The first for a whole split, where even Building and Tree differ enough; the second for some frames of one video.
SCALES = (Scale(0.15, 2.0, 0.0), Scale(1.0, 6.0, 2.0))
# Half a sum of squares in units of a scale. In 8,552 sets of 1 to 500 frames in the right order, no other order of cost below
# MOST was better by MARGIN, and from 5 frames on none by more than 8.3. With two frequent classes of SegNet's splits exchanged
# it is 28 and more.
MOST, MARGIN = 6.0, 20.0

RAREST = 0.001  # percent of the pixels, taken for none


def find_likely_order(masks: Sequence[np.ndarray], labels: LabelSet) -> list[str] | None:
    """What the ids 0, 1, ... seem to be called, where the names that they have cannot be right; None if these can be.

    Args:
        masks: uint8 [height, width], class ids.
        labels: Their names; others than CamVid's 11, in whatever order, are not looked at.
    """
    given = [label.name for label in labels.classes]
    if sorted(given) != sorted(NAMES) or not masks:
        return None
    shares, heights = measure_profile(masks, range(len(given)))
    for scale in SCALES:
        costs = cost_of_names(shares, heights, scale)
        cost, best = min(_cheapest(cost) for cost in costs)
        if cost <= MOST and cost_of_order(costs, given) - cost >= MARGIN:
            known = [order for order in ORDERS.values() if cost_of_order(costs, order) - cost < MARGIN / 2]
            return known[0] if known else [NAMES[number] for number in best]
    return None


def measure_profile(masks: Iterable[np.ndarray], ids: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Share and mean height of each id, in percent; the height of an id without a pixel is NaN. Every mask counts the same."""
    listed = list(ids)
    shares, heights = np.zeros(len(listed)), np.zeros(len(listed))
    for mask in masks:
        row = np.arange(len(mask))
        counts = np.bincount((row[:, None] * 256 + mask).ravel(), minlength=len(mask) * 256).reshape(-1, 256)[:, listed]
        shares += counts.sum(axis=0) / mask.size
        heights += (row + 0.5) / len(mask) * 100 @ counts / mask.size
    with np.errstate(invalid="ignore"):
        return shares / shares.sum() * 100, heights / shares


def cost_of_names(shares: np.ndarray, heights: np.ndarray, scale: Scale) -> np.ndarray:
    """What it costs to give an id (row) a name (column of `NAMES`), for each known profile: [4, ids, names]."""
    looked_at = shares >= scale.least_share
    share = np.log(np.maximum(shares, RAREST))[:, None] - np.log(SHARES)[:, None]
    height = np.nan_to_num(heights)[:, None] - HEIGHTS[:, None]
    return np.where(looked_at[:, None], ((share / scale.log_share) ** 2 + (height / scale.height) ** 2) / 2, 0.0)


def cost_of_order(costs: np.ndarray, names: Sequence[str]) -> float:
    """What it costs to call the ids 0, 1, ... by these names, by the profile that suits them best."""
    return float(min(cost[np.arange(len(names)), [NAMES.index(name) for name in names]].sum() for cost in costs))


def _cheapest(cost: np.ndarray) -> tuple[float, list[int]]:
    ids, names = linear_sum_assignment(cost)
    return float(cost[ids, names].sum()), names.tolist()
