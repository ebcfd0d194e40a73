"""The embedded data set: synthetic street scenes, written once as a folder of PNG files in the SegNet layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from src.datasets.augmentation import Augmentation, MaskResize
from src.datasets.camvid import CamVid
from src.datasets.publishing import publishing
from src.datasets.reader import Cache, SegmentationDataset, Source
from src.datasets.street_scenes.scene import render_scene
from src.errors import ConfigError, DataError

# Goes up with every change to what the scenes show: data of another generator is other data.
GENERATOR_VERSION = 2

# Each split draws from its own range of scene numbers, so that no scene is in two of them.
SPLIT_LENGTH_LIMIT = 100_000
SPLIT_STARTS = {"train": 0, "val": 100_000, "test": 200_000}


def write_streets(
    root: Path, *, num_train: int, num_val: int, num_test: int, height: int, width: int, seed: int, render: bool = True
) -> Path:
    """Write the data set below root, unless it is already there, and return its folder.

    The folder holds train, trainannot, val, valannot, test and testannot, with images and masks of the same
    names. It appears whole or not at all: the files are written beside it and renamed in one step, so a killed
    writer leaves nothing that is taken for the data set, and of two writers at once the later uses the other's.

    Args:
        root: Folder that holds generated data sets; made if it is missing.
        num_train: Scenes in the train split; num_val and num_test likewise.
        num_val: See num_train.
        num_test: See num_train.
        height: Rows of an image, in pixels.
        width: Columns of an image, in pixels.
        seed: Names the data set; other seeds show other scenes.
        render: Whether it may be written.

    Raises:
        DataError: If it is not there and may not or cannot be written.
        ValueError: If a split is empty or too long, a side is too short, or the seed is negative.
    """
    counts = {"train": num_train, "val": num_val, "test": num_test}
    for split, count in counts.items():
        if not 1 <= count <= SPLIT_LENGTH_LIMIT:
            raise ValueError(f"num_{split} is {count}; allowed are 1 to {SPLIT_LENGTH_LIMIT}")
    name = f"streets_v{GENERATOR_VERSION}_{height}x{width}_train{num_train}_val{num_val}_test{num_test}_seed{seed}"
    final = root / name
    if final.is_dir():
        return final
    if not render:
        raise DataError(f"{final}: not there, and not made outside data/ unless you name the folder; give root=FOLDER")
    # Also says at once, before any folder is made, whether seed and size are allowed.
    render_scene(seed, 0, height, width)
    try:
        with publishing(final) as partial:
            for split, count in counts.items():
                write_split(partial, split, count, height, width, seed)
    except OSError as error:
        raise DataError(f"{final}: cannot be written ({error.strerror}); use another dataset.root") from error
    return final


def write_split(folder: Path, split: str, count: int, height: int, width: int, seed: int) -> None:
    """Render one split's scenes into its image and its mask folder."""
    images, masks = folder / split, folder / f"{split}annot"
    images.mkdir()
    masks.mkdir()
    for number in range(count):
        image, mask = render_scene(seed, SPLIT_STARTS[split] + number, height, width)
        file = f"street_{number:05d}.png"
        # Level 1: the noise of the images hardly compresses, and higher levels take several times as long.
        Image.fromarray(image).save(images / file, compress_level=1)
        Image.fromarray(mask).save(masks / file, compress_level=1)


class Streets(SegmentationDataset):
    """One split of the embedded data set, rendered on first use and then read as CamVid is.

    Args:
        root: Folder that holds generated data sets.
        split: `train`, `val` or `test`.
        num_train: Scenes in the train split.
        num_val: In the val split.
        num_test: In the test split.
        render_size: [height, width] of the files, in pixels.
        render_seed: Other seeds show other scenes.
        labels: As the arguments that follow, see `CamVid`.
        num_classes: See `CamVid`.
        class_names: See `CamVid`.
        ignore_index: See `CamVid`.
        image_size: See `CamVid`.
        mask_resize: See `CamVid`.
        cache: See `CamVid`.
        augmentation: See `CamVid`.
        seed: See `CamVid`.
        render: Whether scenes that are not there may be rendered.

    Raises:
        ConfigError: If a number is not allowed.
    """

    def __init__(
        self,
        root: str,
        split: str,
        num_train: int = 240,
        num_val: int = 48,
        num_test: int = 48,
        render_size: Sequence[int] = (120, 160),
        render_seed: int = 0,
        labels: str = "camvid11",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
        image_size: Sequence[int] | None = None,
        mask_resize: MaskResize = "center",
        cache: Cache = "auto",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        render: bool = True,
    ) -> None:
        scenes = (num_train, num_val, num_test, render_size, render_seed)
        source = self.source(root, *scenes, labels, num_classes, class_names, ignore_index, render)
        super().__init__(source, split, image_size, cache, augmentation, seed, mask_resize)

    @staticmethod
    def source(
        root: str,
        num_train: int = 240,
        num_val: int = 48,
        num_test: int = 48,
        render_size: Sequence[int] = (120, 160),
        render_seed: int = 0,
        labels: str = "camvid11",
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
        render: bool = True,
    ) -> Source:
        """Where the files are, rendered if they are not there, and what their masks mean."""
        if len(render_size) != 2:
            raise ConfigError(f"dataset.render_size={list(render_size)}; allowed are [height,width] in pixels")
        height, width = render_size
        counts = {"num_train": num_train, "num_val": num_val, "num_test": num_test}
        folder = write_streets(Path(root), **counts, height=height, width=width, seed=render_seed, render=render)
        return CamVid.source(str(folder), "segnet", labels, num_classes, class_names, ignore_index)
