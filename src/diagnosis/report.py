"""Everything the doctor knows, as one dictionary for programs and one page for people."""

from collections.abc import Sequence
from typing import Any

from src.datasets.augmentation import MaskResize
from src.datasets.labels import LabelSet
from src.datasets.reader import Source
from src.datasets.shared_images import find_shared_images
from src.diagnosis import costs
from src.diagnosis.audit import Problems, SplitAudit, audit_split
from src.diagnosis.conventions import describe_conventions
from src.diagnosis.leakage import find_near_frames
from src.errors import DataError
from src.losses import median_frequency_weights

Report = dict[str, Any]


def diagnose(
    source: Source, image_size: tuple[int, int] | None, mask_resize: MaskResize = "center"
) -> tuple[Report, list[SplitAudit]]:
    """Looks at all of a data set: the report, and what was seen of each split.

    Args:
        source: Its files.
        image_size: [height, width] that training resizes to; None: the files' own.
        mask_resize: How training resizes masks.

    Raises:
        DataError: If the files cannot even be listed.
    """
    problems = Problems()
    splits = [audit_split(source, split, problems) for split in source.splits]
    find_what_training_refuses(source, splits, image_size, problems)
    report: Report = {
        "layout": source.layout,
        "splits": {split.name: describe_split(split, source.labels) for split in splits},
        "sequences": find_near_frames({s.name: [pair.image.stem for pair in s.pairs] for s in splits}, problems.warnings),
    } | describe_conventions(splits, source.labels, problems)
    usable = {split.name: split for split in splits if split.id_pixels[: len(source.labels.classes)].any()}
    if "train" in usable:
        scored = [split for name, split in usable.items() if name != "train"]
        report |= describe_training(usable["train"], source.labels)
        report["resize"] = describe_resize(scored, source.labels, image_size, mask_resize)
        report["baselines"] = describe_baselines(usable["train"], scored, source.labels)
    report |= {"errors": list(dict.fromkeys(problems.errors)), "warnings": problems.warnings}
    return report, splits


def find_what_training_refuses(
    source: Source, splits: Sequence[SplitAudit], image_size: tuple[int, int] | None, problems: Problems
) -> None:
    """What only shows when the splits are looked at together."""
    problems.errors += find_shared_images({split.name: split.image_digests.items() for split in splits})
    for name in ("train", "val"):
        if name not in source.splits:
            problems.errors.append(f"{source.root}: no {name} split here; training needs it")
    for split in splits:
        if split.masks:
            try:
                source.labels.check_split(split.id_pixels, split.name, source.root)
            except DataError as error:
                problems.errors.append(str(error))
        if len(split.sizes) > 1:
            found = problems.errors if image_size is None else problems.warnings
            hint = "; set dataset.image_size=[height,width]" if image_size is None else ""
            found.append(f"{split.name}: images of several sizes: {listed(split.sizes)}{hint}")


def describe_split(split: SplitAudit, labels: LabelSet) -> Report:
    """Counts, sizes, pixel formats, and the shares of the pixels: each class, other ids that are learnt, and void."""
    total = max(int(split.id_pixels.sum()), 1)
    names = [label.name for label in labels.classes]
    classes, void = int(split.id_pixels[: len(names)].sum()), int(split.id_pixels[labels.ignore_index])
    return {
        "images": len(split.pairs),
        "sizes": dict(split.sizes),
        "mask_sizes": dict(split.mask_sizes),
        "image_modes": dict(split.image_modes),
        "mask_modes": dict(split.mask_modes),
        "class_shares": {name: int(split.id_pixels[i]) / total for i, name in enumerate(names)},
        "class_images": {name: int(split.id_images[i]) for i, name in enumerate(names)},
        "other_share": (int(split.id_pixels.sum()) - classes - void) / total,
        "void_share": void / total,
    }


def describe_training(train: SplitAudit, labels: LabelSet) -> Report:
    """What the training split says of loss and augmentation."""
    weights = median_frequency_weights(train.id_pixels, train.id_image_pixels, labels.num_classes, labels.ignore_index)
    names = [label.name for label in labels.classes]
    return {
        "median_frequency_weights": dict(zip(names, weights.tolist(), strict=False)),
        "flips": costs.cost_of_flips(train.masks, labels)._asdict(),
    }


def describe_resize(
    scored: Sequence[SplitAudit], labels: LabelSet, size: tuple[int, int] | None, mask_resize: MaskResize
) -> Report | None:
    """The mIoU at full size of a prediction that is perfect at the training size, for each split that is scored."""
    if size is None:
        return None
    scores = {split.name: costs.cost_of_size(split.masks, size, labels, mask_resize).miou for split in scored}
    return {"size": list(size), "miou_of_perfect_prediction": scores}


def describe_baselines(train: SplitAudit, scored: Sequence[SplitAudit], labels: LabelSet) -> Report:
    """What predictors without a network score on each split, at the masks' own size."""
    train_counts = costs.count_classes(train.masks, labels)
    report: Report = {}
    for split in scored:
        name, constant = costs.one_class(train.id_pixels, split.id_pixels, labels)
        majority = costs.majority_per_pixel(train_counts, split.masks, labels)
        report[split.name] = {"one_class": {"class": name, **constant._asdict()}, "majority_per_pixel": majority._asdict()}
    return report


def render_page(report: Report) -> str:
    """The report as one page of text."""
    splits = report["splits"]
    lines = [f"layout: {report['layout']}"]
    for name, split in splits.items():
        images = f"{listed(split['sizes'])} in {listed(split['image_modes'])}"
        masks = f"{listed(split['mask_sizes'])} in {listed(split['mask_modes'])}"
        lines.append(f"{name}: {split['images']} pairs; images {images}, masks {masks}")
    lines += ["", *class_table(report)]
    if "flips" in report:
        lines += ["", *what_it_means(report)]
    for kind in ("errors", "warnings"):
        lines += ["", f"{kind}: {len(report[kind]) or 'none'}", *(f"  {line}" for line in report[kind])]
    return "\n".join([*lines, "", f"figure: {report['figure'] or 'none'}"])


def listed(counts: dict[str, int]) -> str:
    """`360x480`, or with their counts where there are several, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ranked[0][0] if len(ranked) == 1 else ", ".join(f"{name} ({count})" for name, count in ranked) or "-"


def class_table(report: Report) -> list[str]:
    """Share of the pixels in percent and number of images with it, for each class and split."""
    splits = report["splits"]
    weights = report.get("median_frequency_weights", {})
    head = "".join(f"{f'{name} %':>10}{'images':>8}" for name in splits)
    lines = [f"{'class':<20}{head}{'weight':>10}"]
    for name in next(iter(splits.values()))["class_shares"]:
        cells = "".join(f"{s['class_shares'][name] * 100:>10.2f}{s['class_images'][name]:>8}" for s in splits.values())
        lines.append(f"{name:<20}{cells}" + (f"{weights[name]:>10.4f}" if name in weights else ""))
    for title, key in (("other ids", "other_share"), ("void", "void_share")):
        shares = [split[key] for split in splits.values()]
        if key == "void_share" or any(shares):
            lines.append(f"{title:<20}" + "".join(f"{share * 100:>10.2f}{'':>8}" for share in shares))
    if report["void_convention"] == "merged":
        lines.append("void: lane marks are no void but Road, as where all 32 classes are merged")
    return [*lines, "weight: median frequency, of the training split (loss=balanced_cross_entropy)"]


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
