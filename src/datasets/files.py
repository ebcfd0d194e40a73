"""Finding image and mask files and reading them, with an error that names the file for everything that can be wrong."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 50_000_000  # of an image; a header that promises more is a decompression bomb, or no picture of a street
MAX_NAMED = 5  # files that an error lists by name
ORIENTATION = 0x0112  # the EXIF tag

Image.MAX_IMAGE_PIXELS = None  # Pillow's limit only warns; MAX_PIXELS takes its place


Report = Callable[[Sequence[Path], str], None]  # is told which files have which problem


def refuse(files: Sequence[Path], problem: str) -> None:
    """Raises it as a DataError: training stops at the first problem. The doctor collects them instead."""
    more = f" and {len(files) - MAX_NAMED} more" if len(files) > MAX_NAMED else ""
    raise DataError(f"{', '.join(str(file) for file in files[:MAX_NAMED])}{more}: {problem}")


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

    @property
    def size(self) -> str:
        """`<height>x<width>`."""
        return "x".join(map(str, self.pixels.shape[:2]))


def list_images(folder: Path, report: Report = refuse) -> list[Path]:
    """The folder's PNG and JPEG files, sorted by name; hidden files are left out.

    Reported are a missing folder, and things that have such a name and are no file.
    """
    if not folder.is_dir():
        report([folder], "no such folder")
        return []
    named = [f for f in folder.iterdir() if not f.name.startswith(".") and f.suffix.lower() in SUFFIXES]
    files = [f for f in sorted(named, key=lambda f: f.name) if _is_file(f)]
    if others := sorted(set(named) - set(files)):
        report(others, "is no file; remove or rename it")
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
        report([image_folder], f"no image (allowed are {', '.join(SUFFIXES)}); put images here or change dataset.root")
    if alone := sorted(images.keys() - masks.keys()):
        report([images[stem] for stem in alone], f"no mask of the same name in {mask_folder}")
    if alone := sorted(masks.keys() - images.keys()):
        report([masks[stem] for stem in alone], f"no image of the same name in {image_folder}")
    return [Pair(image, masks[stem]) for stem, image in images.items() if stem in masks]


def by_stem(folder: Path, suffix: str = "", report: Report = refuse) -> dict[str, Path]:
    """The folder's images by their stem without `suffix`, in the order of their names."""
    found: dict[str, Path] = {}
    for file in list_images(folder, report):
        stem = stem_of(file.name, suffix)
        if not file.stem.endswith(suffix):
            report([file], f"masks here are named <image>{suffix}.png; rename it or take it away")
        elif stem in found:
            report([file], f"{found[stem].name} has the same stem; keep one of the two")
        else:
            found[stem] = file
    return found


def stem_of(name: str, suffix: str = "") -> str:
    """A file's name without the folders, its type and `suffix`, spelt in one way: macOS may spell the same name in another."""
    return unicodedata.normalize("NFC", Path(name).stem.removesuffix(suffix))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty; raises DataError if it is no text in UTF-8."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start}); save it as such") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check name and permissions") from error


def read_image(path: Path) -> Picture:
    """An image as RGB, upright; 16-bit grey is scaled to 8.

    Raises:
        DataError: If it cannot be decoded whole or is too large.
    """
    with _decoded(path, ("PNG", "JPEG")) as image:
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
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: a mask must be a PNG; JPEG changes values at every edge")
    with _decoded(path, ("PNG",)) as mask:
        _check_depth(path)
        orientation, mode, transparent = _orientation(mask), mask.mode, _transparent_pixels(mask)
        if transparent:
            raise DataError(f"{path}: a mask with {transparent} pixels that are not opaque; save it without transparency")
        if mode in ("LA", "RGBA"):
            mask = mask.convert(mode.removesuffix("A"))
        pixels = np.array(ImageOps.exif_transpose(mask))
        return Picture(pixels.astype(np.uint8) if mode == "1" else pixels, orientation, mode, 0)


def _check_depth(path: Path) -> None:
    """Refuses PNG masks whose values Pillow does not give as they are stored."""
    with path.open("rb") as file:
        depth, color_type = file.read(26)[24:]  # of the header, which comes first
    if color_type == 0 and depth in (2, 4):
        raise DataError(f"{path}: a grey mask of {depth} bits, whose values are read scaled; save it with 8 bits")
    if color_type != 0 and depth == 16:
        raise DataError(f"{path}: a colour mask of 16 bits, of which half are lost; save it with 8 bits")


def _orientation(image: Image.Image) -> int:
    """How its pixels are turned, 2 to 8; 1, which is upright, for whatever other number a camera wrote."""
    orientation = image.getexif().get(ORIENTATION, 1)
    return orientation if orientation in range(2, 9) else 1


def _transparent_pixels(image: Image.Image) -> int:
    if not image.has_transparency_data:
        return 0
    return int(np.count_nonzero(np.asarray(image.convert("RGBA").getchannel("A")) != 255))


@contextmanager
def _decoded(path: Path, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Opens and decodes an image whole; every failure, in the body too, becomes a DataError with the file's name."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check name and permissions") from error
    with file:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; copy it again")
        try:
            image = Image.open(file, formats=formats)
            check_size(path, image)
            image.load()
            yield image
        except DataError:
            raise
        except Exception as error:  # Pillow raises whatever a broken file leads it to
            why = "damaged, or of another kind" if isinstance(error, UnidentifiedImageError) else str(error).partition("\n")[0]
            what = " or ".join(formats)
            raise DataError(f"{path}: cannot be read as a {what} image ({why}); copy it again, or save it as one") from error


def check_size(path: Path, image: Image.Image) -> None:
    """Raises DataError for a header that promises more pixels than this project decodes."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width}x{height} pixels; allowed are {MAX_PIXELS:,} in all. Make it smaller")


def read_pair(pair: Pair) -> tuple[Picture, Picture]:
    """Image and mask; raises DataError where one cannot be read or they do not lie on each other."""
    image, mask = read_image(pair.image), read_mask(pair.mask)
    check_alignment(pair, image, mask)
    return image, mask


def check_alignment(pair: Pair, image: Picture, mask: Picture) -> None:
    """Raises DataError where image and mask do not lie on each other."""
    if image.orientation != mask.orientation:
        raise DataError(
            f"{pair.image} has EXIF orientation {image.orientation}, its mask {pair.mask} {mask.orientation}: one of them is"
            " turned when it is shown upright. Save both without the tag, the same way up"
        )
    if image.size != mask.size:
        raise DataError(
            f"{pair.image} is {image.size} (height x width), its mask {pair.mask} {mask.size}; both must have one size"
        )
