"""Finding image and mask files and reading them, with an error that names the file for everything that can be wrong."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from src.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")
INDEX_MODES = ("L", "P")  # 8-bit grey, or palette: the stored index is the class
MAX_NAMED = 5  # files that an error lists by name


class Pair(NamedTuple):
    """An image and the mask that labels it."""

    image: Path
    mask: Path


def list_images(folder: Path) -> list[Path]:
    """The folder's PNG and JPEG files, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted((file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()), key=lambda f: f.name)


def pair_files(image_folder: Path, mask_folder: Path) -> list[Pair]:
    """Images and masks of the same stem, in the order of their names.

    Raises:
        DataError: If the split is empty, a file has no partner, or two files share a stem.
    """
    images, masks = _by_stem(image_folder), _by_stem(mask_folder)
    if not images:
        raise DataError(f"{image_folder}: no image (allowed are {', '.join(SUFFIXES)}); put images here or change dataset.root")
    if alone := sorted(images.keys() - masks.keys()):
        raise DataError(f"{_names(images[s] for s in alone)}: no mask of the same name in {mask_folder}")
    if alone := sorted(masks.keys() - images.keys()):
        raise DataError(f"{_names(masks[s] for s in alone)}: no image of the same name in {image_folder}")
    return [Pair(image, masks[stem]) for stem, image in images.items()]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in list_images(folder):
        if file.stem in found:
            raise DataError(f"{file}: {found[file.stem].name} has the same stem; keep one of the two")
        found[file.stem] = file
    return found


def _names(files: Iterable[Path]) -> str:
    listed = list(files)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(str(file) for file in listed[:MAX_NAMED]) + more


def read_image(path: Path) -> np.ndarray:
    """An image as uint8 [height, width, 3] RGB; raises DataError when it cannot be decoded whole."""
    with _decoded(path) as image:
        return np.array(image.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """An index mask as uint8 [height, width], one class id a pixel; palette masks give their indices.

    Raises:
        DataError: If it cannot be decoded whole or is not an 8-bit index mask.
    """
    with _decoded(path) as mask:
        if mask.mode not in INDEX_MODES:
            raise DataError(
                f"{path}: a mask of mode {mask.mode}; allowed are 8-bit grey or palette PNGs whose values are class ids"
            )
        return np.array(mask)


@contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """Opens and decodes an image whole; every failure becomes a DataError with the file's name."""
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; copy it again")
    with path.open("rb") as file:
        try:
            image = Image.open(file)
            image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); copy it again") from error
        yield image


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask; raises DataError where one cannot be read or their sizes differ."""
    image, mask = read_image(pair.image), read_mask(pair.mask)
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"{pair.image} is {image.shape[0]}x{image.shape[1]} (height x width),"
            f" its mask {pair.mask} {mask.shape[0]}x{mask.shape[1]}; both must have one size"
        )
    return image, mask
