"""How CamVid lies on disk, recognised by the folders that are there."""

from pathlib import Path
from typing import Literal, NamedTuple

from src.errors import DataError

Split = Literal["train", "val", "test"]


class Layout(NamedTuple):
    """A known arrangement: the image and the mask folder of each split that it has."""

    name: str
    folders: dict[str, tuple[str, str]]


LAYOUTS = (
    Layout("SegNet", {split: (split, f"{split}annot") for split in ("train", "val", "test")}),
    Layout("original script", {"train": ("train_images", "train_labels"), "val": ("valid_images", "valid_labels")}),
)


def find_layout(root: Path) -> Layout:
    """The layout under `root`.

    Raises:
        DataError: If none is there, or more than one.
    """
    found = [layout for layout in LAYOUTS if all((root / f).is_dir() for f in layout.folders["train"])]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{layout.name}: {', '.join(layout.folders['train'])} ..." for layout in LAYOUTS)
    if found:
        raise DataError(f"{root}: holds {' and '.join(f.name for f in found)} layouts; keep one (known are {known})")
    raise DataError(
        f"{root.absolute()}: no CamVid here (known layouts are {known});"
        " give its folder with dataset.root=FOLDER, or train on the embedded data set with dataset=streets"
    )


def split_folders(root: Path, split: str) -> tuple[Path, Path]:
    """The image folder and the mask folder of a split under `root`."""
    layout = find_layout(root)
    if split not in layout.folders:
        raise DataError(f"{root}: the {layout.name} layout has no {split} split; it has {', '.join(layout.folders)}")
    images, masks = layout.folders[split]
    return root / images, root / masks
