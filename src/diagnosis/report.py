"""Everything the doctor knows, as one dictionary for programs and one page for people."""

from collections.abc import Sequence
from typing import Any

from src.datasets.labels import LabelSet
from src.datasets.reader import Source
from src.diagnosis import costs
from src.diagnosis.audit import Problems, SplitAudit, audit_split
from src.diagnosis.leakage import find_near_frames, find_shared_images
from src.losses import median_frequency_weights

Report = dict[str, Any]


def diagnose(source: Source, image_size: tuple[int, int] | None) -> tuple[Report, list[SplitAudit]]:
    """Looks at all of a data set; see `render_page` for what the report holds.

    Args:
        source: Its files.
        image_size: [height, width] that training resizes to; None: the files' own.
    """
    problems = Problems()
    splits = [audit_split(source, split, problems) for split in source.splits]
    find_shared_images(splits, problems)
    report: Report = {
        "layout": source.layout,
        "splits": {split.name: describe_split(split, source.labels) for split in splits},
        "sequences": find_near_frames(splits, problems),
    }
    train = splits[0]
    if train.masks:
        report |= describe_training(train, source.labels)
        report["resize"] = describe_resize(splits, source.labels, image_size)
        report["baselines"] = {s.name: describe_baselines(train, s, source.labels) for s in splits[1:] if s.masks}
    report |= {"errors": problems.errors, "warnings": problems.warnings}
    return report, splits


def describe_split(split: SplitAudit, labels: LabelSet) -> Report:
    """Counts, sizes, pixel formats, and each class's share of the pixels (void's too, so that they add up to 1)."""
    total = max(int(split.id_pixels.sum()), 1)
    names = [label.name for label in labels.classes]
    return {
        "images": len(split.pairs),
        "sizes": dict(split.sizes),
        "image_modes": dict(split.image_modes),
        "mask_modes": dict(split.mask_modes),
        "class_shares": {name: int(split.id_pixels[i]) / total for i, name in enumerate(names)},
        "class_images": {name: int(split.id_images[i]) for i, name in enumerate(names)},
        "void_share": int(split.id_pixels[labels.ignore_index]) / total,
    }


def describe_training(train: SplitAudit, labels: LabelSet) -> Report:
    """What the training split says of loss and augmentation."""
    number = len(labels.classes)
    weights = median_frequency_weights(train.id_pixels[:number], train.id_image_pixels[:number])
    flips = costs.cost_of_flips(train.masks, labels)
    return {
        "median_frequency_weights": dict(zip((c.name for c in labels.classes), weights.tolist(), strict=True)),
        "flips": flips._asdict(),
    }


def describe_resize(splits: Sequence[SplitAudit], labels: LabelSet, size: tuple[int, int] | None) -> Report | None:
    """The mIoU at full size of a prediction that is perfect at the training size, for each split that is scored."""
    if size is None:
        return None
    scores = {split.name: costs.cost_of_size(split.masks, size, labels).miou for split in splits[1:] if split.masks}
    return {"size": list(size), "miou_of_perfect_prediction": scores}


def describe_baselines(train: SplitAudit, split: SplitAudit, labels: LabelSet) -> Report:
    """What predictors without a network score on a split, at the masks' own size."""
    name, constant = costs.one_class(split.id_pixels, labels)
    majority = costs.majority_per_pixel(train.masks, split.masks, labels)
    return {"one_class": {"class": name, **constant._asdict()}, "majority_per_pixel": majority._asdict()}


def render_page(report: Report) -> str:
    """The report as one page of text."""
    splits = report["splits"]
    lines = [f"layout: {report['layout']}"]
    for name, split in splits.items():
        sizes, images, masks = (listed(split[key]) for key in ("sizes", "image_modes", "mask_modes"))
        lines.append(f"{name}: {split['images']} images of {sizes or 'no size'}; images {images or '-'}, masks {masks or '-'}")
    lines += ["", *class_table(report)]
    if "flips" in report:
        lines += ["", *what_it_means(report)]
    for kind in ("errors", "warnings"):
        lines += ["", f"{kind}: {len(report[kind]) or 'none'}", *(f"  {line}" for line in report[kind])]
    return "\n".join(lines) + "\n"


def listed(counts: dict[str, int]) -> str:
    """`360x480`, or with their counts where there are several."""
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{name} ({count})" for name, count in counts.items())


def class_table(report: Report) -> list[str]:
    """Share of the pixels in percent and number of images with it, for each class and split."""
    splits = report["splits"]
    weights = report.get("median_frequency_weights", {})
    head = "".join(f"{f'{name} %':>10}{'images':>8}" for name in splits)
    lines = [f"{'class':<20}{head}{'weight':>10}"]
    for name in next(iter(splits.values()))["class_shares"]:
        cells = "".join(f"{s['class_shares'][name] * 100:>10.2f}{s['class_images'][name]:>8}" for s in splits.values())
        lines.append(f"{name:<20}{cells}" + (f"{weights[name]:>10.4f}" if name in weights else ""))
    void = "".join(f"{split['void_share'] * 100:>10.2f}{'':>8}" for split in splits.values())
    return [*lines, f"{'void':<20}{void}", "weight: median frequency, of the training split (loss=balanced_cross_entropy)"]


def what_it_means(report: Report) -> list[str]:
    """What to read a score beside."""
    lines = []
    for name, both in report["baselines"].items():
        constant, majority = both["one_class"], both["majority_per_pixel"]
        lines.append(
            f"without a network, {name}: {constant['class']} everywhere {constant['miou'] * 100:.1f} mIoU"
            f" {constant['pixel_accuracy'] * 100:.1f} % of pixels;"
            f" majority of each pixel {majority['miou'] * 100:.1f} mIoU {majority['pixel_accuracy'] * 100:.1f} %"
        )
    if report["resize"]:
        height, width = report["resize"]["size"]
        for name, miou in report["resize"]["miou_of_perfect_prediction"].items():
            lines.append(f"a perfect prediction at {height}x{width} scores {miou * 100:.1f} mIoU on {name} at full size")
    flips = report["flips"]
    lines.append(
        f"a pixel's row tells {flips['row_bits']:.2f} bits of its class, {flips['row_bits_after_vertical']:.2f} once half of the"
        f" images are flipped vertically; its column {flips['column_bits']:.2f}, flipped horizontally"
        f" {flips['column_bits_after_horizontal']:.2f}"
    )
    return lines
