"""Which of the conventions that CamVid is passed on in a copy follows: the order of its ids, and which classes are void."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from src.datasets.label_sets import UNMERGED
from src.datasets.labels import LabelSet
from src.datasets.layouts import segnet_splits
from src.diagnosis.audit import Problems, SplitAudit
from src.diagnosis.class_order import NAMES, ORDERS, find_likely_order

# Of what lies within the road, in the median image. Measured on SegNet's masks: 0.02 % in val, 0.08 % in test, at most 0.35 %
# in any 20 frames in sequence. With every bright pixel of the road, as paint is, made void: 1.2 % in val to 3.4 % in train.
MOST_VOID_IN_ROAD = 0.005


def describe_conventions(splits: Sequence[SplitAudit], labels: LabelSet, problems: Problems) -> dict[str, Any]:
    """Warns of names that cannot be right and of classes that were left unmerged.

    Args:
        splits: What was seen of them.
        labels: What their ids mean; nothing is found unless these are CamVid's 11 classes.
        problems: Receives the warnings.

    Returns:
        `likely_order` by split, where the names are wrong; `void_in_road`, see `measure_void_in_road`, and `void_convention`,
        `merged` or `unmerged`, where images have the names of CamVid's.
    """
    likely = {split.name: order for split in splits if (order := find_likely_order(split.masks, labels))}
    for order in dict.fromkeys(map(tuple, likely.values())):
        where = ", ".join(name for name, found in likely.items() if tuple(found) == order)
        problems.warnings.append(f"{where}: {explain_order(order, labels)}")
    report: dict[str, Any] = {"likely_order": likely, "void_in_road": None, "void_convention": None}
    is_camvid = any(pair.image.stem in segnet_splits() for split in splits for pair in split.pairs)
    if likely or not is_camvid or {label.name for label in labels.classes} != set(NAMES):
        return report
    report["void_in_road"] = share = measure_void_in_road((mask for split in splits for mask in split.masks), labels)
    if share is not None:
        report["void_convention"] = "unmerged" if share > MOST_VOID_IN_ROAD else "merged"
    if report["void_convention"] == "unmerged":
        problems.warnings.append(
            f"void covers {share:.1%} of what lies within the road of the median image, as if lane marks were void: {UNMERGED}"
        )
    return report


def explain_order(order: Sequence[str], labels: LabelSet) -> str:
    """That ids have the wrong names, which ones seem right, and what to do."""
    given = [label.name for label in labels.classes]
    wrong = [
        f"id {number} is called {a} and looks like {b}" for number, (a, b) in enumerate(zip(given, order, strict=True)) if a != b
    ]
    known = next((f" ({name} order)" for name, names in ORDERS.items() if names == list(order)), "")
    return (
        f"by their shares of the pixels and their places in the image, class names cannot be right: {', '.join(wrong)}{known}."
        " Scores of single classes would stand under the wrong names. Look at the masks; to rename the ids, set"
        f" dataset.labels=index dataset.num_classes={labels.num_classes} dataset.ignore_index={labels.ignore_index}"
        f" 'dataset.class_names=[{','.join(order)}]'"
    )


def measure_void_in_road(masks: Iterable[np.ndarray], labels: LabelSet) -> float | None:
    """Share of void in road and in the void that has road at both ends of its row, in the median image; None without any road."""
    road_id = [label.name for label in labels.classes].index("Road")
    shares = []
    for mask in masks:
        is_void, column = mask == labels.ignore_index, np.arange(mask.shape[1])
        left = np.maximum.accumulate(np.where(is_void, 0, column), axis=1)
        right = np.minimum.accumulate(np.where(is_void, len(column) - 1, column)[:, ::-1], axis=1)[:, ::-1]
        ends = [np.take_along_axis(mask, end, axis=1) == road_id for end in (left, right)]
        road, within = np.count_nonzero(mask == road_id), np.count_nonzero(is_void & ends[0] & ends[1])
        if road:
            shares.append(within / (within + road))
    return float(np.median(shares)) if shares else None
