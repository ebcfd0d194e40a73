"""Finding image and mask files and reading them, with an error that names the file for everything that can be wrong."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from src.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")
LOSSLESS = (".png",)
MAX_PIXELS = 50_000_000  # of an image; a header that promises more is a decompression bomb, or no picture of a street
MAX_NAMED = 5  # files that an error lists by name
ORIENTATION = 0x0112  # the EXIF tag

Image.MAX_IMAGE_PIXELS = None  # Pillow's limit only warns; MAX_PIXELS takes its place


Report = Callable[[str], None]  # is told what is wrong, in one line


def refuse(problem: str) -> None:
    """Raises it as a DataError: training stops at the first problem. The doctor collects them instead."""
    raise DataError(problem)


class Pair(NamedTuple):
    """An image and the mask that labels it."""

    image: Path
    mask: Path


class Picture(NamedTuple):
    """A file's pixels, upright, and what was seen on the way.

    Attributes:
        pixels: Of an image uint8 [height, width, 3]; of a mask integers [height, width] or colours uint8 [height, width, 3].
        orientation: Its EXIF orientation; 1 is upright.
        mode: Pillow's name of its pixel format.
        transparent: How many pixels are not opaque; what they are seen through is left out.
    """

    pixels: np.ndarray
    orientation: int
    mode: str
    transparent: int


def list_images(folder: Path, report: Report = refuse) -> list[Path]:
    """The folder's PNG and JPEG files, sorted by name; hidden files are left out.

    Reported are a missing folder, and things that have such a name and are no file.
    """
    if not folder.is_dir():
        report(f"{folder}: no such folder")
        return []
    named = [f for f in folder.iterdir() if not f.name.startswith(".") and f.suffix.lower() in SUFFIXES]
    files = [f for f in sorted(named, key=lambda f: f.name) if _is_file(f)]
    for other in sorted(set(named) - set(files)):
        report(f"{other}: is no file; remove or rename it")
    return files


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a symbolic link that leads to itself
        return False


def pair_files(image_folder: Path, mask_folder: Path, mask_suffix: str = "", report: Report = refuse) -> list[Pair]:
    """Images and the masks of stem `<image's stem><mask_suffix>`, in the order of the images' names.

    Reported are an empty split, files without a partner, and two files of one stem.
    """
    images, masks = by_stem(image_folder, "", report), by_stem(mask_folder, mask_suffix, report)
    if not images:
        report(f"{image_folder}: no image (allowed are {', '.join(SUFFIXES)}); put images here or change dataset.root")
    if alone := sorted(images.keys() - masks.keys()):
        report(f"{_names(images[s] for s in alone)}: no mask of the same name in {mask_folder}")
    if alone := sorted(masks.keys() - images.keys()):
        report(f"{_names(masks[s] for s in alone)}: no image of the same name in {image_folder}")
    return [Pair(image, masks[stem]) for stem, image in images.items() if stem in masks]


def by_stem(folder: Path, suffix: str = "", report: Report = refuse) -> dict[str, Path]:
    """The folder's images by their stem without `suffix`, in the order of their names."""
    found: dict[str, Path] = {}
    for file in list_images(folder, report):
        stem = unicodedata.normalize("NFC", file.stem.removesuffix(suffix))  # macOS may spell the same name otherwise
        if not file.stem.endswith(suffix):
            report(f"{file}: masks here are named <image>{suffix}.png; rename it or take it away")
        elif stem in found:
            report(f"{file}: {found[stem].name} has the same stem; keep one of the two")
        else:
            found[stem] = file
    return found


def _names(files: Iterable[Path]) -> str:
    listed = list(files)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(str(file) for file in listed[:MAX_NAMED]) + more


def read_image(path: Path) -> Picture:
    """An image as RGB, upright; 16-bit grey is scaled to 8.

    Raises:
        DataError: If it cannot be decoded whole or is too large.
    """
    with _decoded(path) as image:
        orientation, mode, transparent = _orientation(image), image.mode, _transparent_pixels(image)
        upright = ImageOps.exif_transpose(image)
        if mode.startswith("I"):  # 16-bit grey, which Pillow's convert() would cut off at 255
            grey = (np.asarray(upright).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
            return Picture(np.dstack([grey] * 3), orientation, mode, transparent)
        return Picture(np.array(upright.convert("RGB")), orientation, mode, transparent)


def read_mask(path: Path) -> Picture:
    """A mask as stored, upright: the values of a grey or palette mask, the colours of a colour mask.

    Raises:
        DataError: If it cannot be decoded whole, is too large or is of a format that loses values.
    """
    if path.suffix.lower() not in LOSSLESS:
        raise DataError(f"{path}: a mask must be a PNG; JPEG changes values at every edge")
    with _decoded(path) as mask:
        orientation, mode, transparent = _orientation(mask), mask.mode, _transparent_pixels(mask)
        if transparent:
            raise DataError(f"{path}: a mask with {transparent} pixels that are not opaque; save it without transparency")
        if mode in ("LA", "RGBA"):
            mask = mask.convert(mode.removesuffix("A"))
        elif mode not in ("1", "L", "P", "RGB") and not mode.startswith("I"):
            raise DataError(f"{path}: a mask of mode {mode}; allowed are grey, palette and RGB PNGs")
        pixels = np.array(ImageOps.exif_transpose(mask))
        return Picture(pixels.astype(np.uint8) if mode == "1" else pixels, orientation, mode, 0)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ORIENTATION, 1))


def _transparent_pixels(image: Image.Image) -> int:
    if image.mode in ("LA", "PA", "RGBA"):
        return int(np.count_nonzero(np.asarray(image.getchannel("A")) != 255))
    return 0


@contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """Opens and decodes an image whole; every failure becomes a DataError with the file's name."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise DataError(f"{path}: the file is empty; copy it again")
            try:
                image = Image.open(file)
                check_size(path, image)
                image.load()
            except DataError:
                raise
            except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
                raise DataError(f"{path}: cannot be read as an image ({error}); copy it again") from error
            yield image
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check name and permissions") from error


def check_size(path: Path, image: Image.Image) -> None:
    """Raises DataError for a header that promises more pixels than this project decodes."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width}x{height} pixels; allowed are {MAX_PIXELS:,} in all. Make it smaller")


def read_pair(pair: Pair) -> tuple[Picture, Picture]:
    """Image and mask; raises DataError where one cannot be read or they do not lie on each other."""
    image, mask = read_image(pair.image), read_mask(pair.mask)
    if image.orientation != mask.orientation:
        raise DataError(
            f"{pair.image} has EXIF orientation {image.orientation}, its mask {pair.mask} {mask.orientation}: one of them is"
            " turned when it is shown upright. Save both without the tag, the same way up"
        )
    if image.pixels.shape[:2] != mask.pixels.shape[:2]:
        raise DataError(f"{pair.image} is {size_of(image)}, its mask {pair.mask} {size_of(mask)}; both must have one size")
    return image, mask


def size_of(picture: Picture) -> str:
    """`360x480 (height x width)`."""
    height, width = picture.pixels.shape[:2]
    return f"{height}x{width} (height x width)"
