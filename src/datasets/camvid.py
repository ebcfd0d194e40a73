"""CamVid (Brostow et al. 2008), in whichever form it lies on disk."""

from collections.abc import Sequence
from pathlib import Path

from src.datasets.augmentation import Augmentation, MaskResize
from src.datasets.color_tables import check_color_tables
from src.datasets.label_sets import camvid_labels
from src.datasets.layouts import find_layout
from src.datasets.reader import Cache, SegmentationDataset, Source


class CamVid(SegmentationDataset):
    """One split of CamVid, or of index masks in one of its layouts.

    Args:
        root: Folder in a known layout (`src/datasets/layouts.py`).
        split: `train`, `val` or `test`.
        layout: Which of several layouts to read; null: the one that is there.
        labels: `camvid11`: the usual merge, ids 0..10 and void 11; `camvid32`: the 31 unmerged classes and void 31; `index`:
            ids as stored, all below `num_classes`.
        num_classes: Channels of the logits; null: as many as there are classes. `index` needs a number.
        class_names: Names of ids 0, 1, ..., which are scored; null: CamVid's. For `index` alone.
        ignore_index: Mask id that counts neither in the loss nor in a score; null: void's, for `index` 255.
        image_size: [height, width] that images and masks are resized to; null keeps their own.
        mask_resize: How masks are resized, see `SegmentationDataset`.
        cache: Where decoded samples are kept, see `SegmentationDataset`.
        augmentation: Random transforms, for training only.
        seed: Of the augmentation.

    Raises:
        DataError: If a file is missing, unreadable, or holds an id that is no class; the message names it.
        ConfigError: If the arguments do not fit each other.
    """

    def __init__(
        self,
        root: str,
        split: str,
        layout: str | None = None,
        labels: str = "camvid11",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
        image_size: Sequence[int] | None = None,
        mask_resize: MaskResize = "center",
        cache: Cache = "auto",
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        source = self.source(root, layout, labels, num_classes, class_names, ignore_index)
        super().__init__(source, split, image_size, cache, augmentation, seed, mask_resize)

    @staticmethod
    def source(
        root: str,
        layout: str | None = None,
        labels: str = "camvid11",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
    ) -> Source:
        """Where the files are and what their masks mean; the arguments are those of the class."""
        found = find_layout(Path(root), layout)
        check_color_tables(Path(root), labels)
        label_set = camvid_labels(labels, found.codes, num_classes, class_names, ignore_index)
        return Source(Path(root), found.name, found.splits, found.pairs, label_set)
