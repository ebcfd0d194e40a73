"""Any folder of images and masks, described in YAML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.datasets.augmentation import Augmentation, MaskResize
from src.datasets.files import Pair, Report, pair_files
from src.datasets.label_sets import named_labels
from src.datasets.layouts import SPLITS
from src.datasets.reader import Cache, SegmentationDataset, Source
from src.errors import ConfigError


class Folder(SegmentationDataset):
    """One split of a data set whose classes and folders are written down.

    Args:
        root: Folder that the others lie in.
        split: `train`, `val` or `test`.
        folders: Split to [folder of images, folder of masks], below `root`.
        classes: Name of each class to what masks show it by: an id, a colour [red, green, blue], or a list of either.
        void: The same for pixels that count neither in the loss nor in a score; null: there are none.
        mask_suffix: What the stems of masks have more than those of their images.
        image_size: [height, width] that images and masks are resized to; null keeps their own.
        mask_resize: How masks are resized, see `SegmentationDataset`.
        cache: Where decoded samples are kept, see `SegmentationDataset`.
        augmentation: Random transforms, for training only.
        seed: Of the augmentation.

    Raises:
        DataError: If a file is missing, unreadable, or shows no class; the message names it.
        ConfigError: If the arguments do not fit each other.
    """

    def __init__(
        self,
        root: str,
        split: str,
        folders: Mapping[str, Sequence[str]],
        classes: Mapping[str, Any],
        void: Any = None,
        mask_suffix: str = "",
        image_size: Sequence[int] | None = None,
        mask_resize: MaskResize = "center",
        cache: Cache = "auto",
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        source = self.source(root, folders, classes, void, mask_suffix)
        super().__init__(source, split, image_size, cache, augmentation, seed, mask_resize)

    @staticmethod
    def source(
        root: str,
        folders: Mapping[str, Sequence[str]],
        classes: Mapping[str, Any],
        void: Any = None,
        mask_suffix: str = "",
    ) -> Source:
        """Where the files are and what their masks mean; the arguments are those of the class."""
        for split, both in folders.items():
            if split not in SPLITS:
                raise ConfigError(f"dataset.folders.{split}: no such split; allowed are {', '.join(SPLITS)}")
            if len(both) != 2:
                raise ConfigError(f"dataset.folders.{split}={both}; needed are [folder of images, folder of masks]")

        def pairs(split: str, report: Report) -> list[Pair]:
            images, masks = (Path(root) / folder for folder in folders[split])
            return pair_files(images, masks, mask_suffix, report)

        there = tuple(split for split in SPLITS if split in folders)
        return Source(Path(root), "folders", there, pairs, named_labels(classes, void))
