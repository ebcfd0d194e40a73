"""The reader meets every kind of file: it gives the documented array, or one line that names the file."""

import io
import os
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.datasets.camvid import CamVid
from src.datasets.files import MAX_PIXELS, read_image, read_mask
from src.datasets.label_sets import camvid_labels
from src.datasets.label_tables import CAMVID11
from src.errors import DataError

SIZE = (6, 8)
ORIENTATION = 0x0112


def random_image(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def ids(size: tuple[int, int] = SIZE) -> np.ndarray:
    return (np.arange(size[0] * size[1]) % 12).reshape(size).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training pairs, a and b."""
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate("ab"):
        Image.fromarray(random_image(number)).save(tmp_path / "train" / f"{name}.png")
        Image.fromarray(ids()).save(tmp_path / "trainannot" / f"{name}.png")
    return tmp_path


def read(root: Path, **arguments: Any) -> CamVid:
    return CamVid(str(root), "train", cache="memory", **arguments)


def refused(root: Path, *parts: object, **arguments: Any) -> None:
    """The one line of reading this split names all of these."""
    with pytest.raises(DataError) as caught:
        read(root, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if str(part) not in message] == [], message


def save_turned(array: np.ndarray, file: Path, orientation: int) -> None:
    """As a camera would that was held otherwise: pixels turned, and a tag that says how."""
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    image = Image.fromarray(array)
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    (image.transpose(back) if back is not None else image).save(file, exif=tags)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_palette_masks_give_the_stored_index_whatever_their_colours(root: Path) -> None:
    mask = Image.frombytes("P", (SIZE[1], SIZE[0]), ids().tobytes())
    mask.putpalette([value for label in reversed(CAMVID11) for value in label.color] + [0, 0, 0])
    mask.save(root / "trainannot" / "a.png")
    np.testing.assert_array_equal(read(root)[0][1], ids())


def test_16_bit_images_keep_their_range(root: Path) -> None:
    deep = np.linspace(0, 65535, 48).reshape(SIZE).astype(np.uint16)
    Image.fromarray(deep).save(root / "train" / "a.png")
    expected = np.round(deep / 65535 * 255)
    assert expected.max() == 255
    np.testing.assert_array_equal(read(root)[0][0], np.dstack([expected] * 3))


def test_16_bit_masks_keep_their_ids(root: Path) -> None:
    Image.fromarray(ids().astype(np.uint16)).save(root / "trainannot" / "a.png")
    np.testing.assert_array_equal(read(root)[0][1], ids())
    Image.fromarray(ids().astype(np.uint16) + 256).save(root / "trainannot" / "a.png")
    refused(root, "a.png", "value 256")


def test_alpha_is_left_out_and_told_of(root: Path) -> None:
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[0, :3] = 7
    Image.fromarray(np.dstack([random_image(5), alpha])).save(root / "train" / "a.png")
    data = read(root)
    np.testing.assert_array_equal(data[0][0], random_image(5))
    assert data.notes == [f"1 files have transparent pixels, shown opaque (3 pixels), such as {root / 'train' / 'a.png'}"]


def test_an_image_and_a_mask_turned_alike_are_shown_upright(root: Path) -> None:
    for orientation in (1, 3, 6, 8):
        save_turned(random_image(9), root / "train" / "a.png", orientation)
        save_turned(ids(), root / "trainannot" / "a.png", orientation)
        image, mask = read(root)[0]
        np.testing.assert_array_equal(image, random_image(9))
        np.testing.assert_array_equal(mask, ids())


@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_one_of_the_two_turned(root: Path, folder: str) -> None:
    save_turned(random_image() if folder == "train" else ids(), root / folder / "a.png", 3)
    refused(root, root / "train" / "a.png", root / "trainannot" / "a.png", "EXIF orientation", "the same way up")


def test_names_with_spaces_and_letters_of_all_kinds(root: Path) -> None:
    strange = root / "Straße im Herbst, 100 %=ß"
    (root / "train").rename(strange.parent / "moved")
    strange.mkdir()
    (root / "moved").rename(strange / "train")
    (root / "trainannot").rename(strange / "trainannot")
    (strange / "train" / "a.png").rename(strange / "train" / "über 1.5.png")
    (strange / "trainannot" / "a.png").rename(strange / "trainannot" / "über 1.5.png")
    assert [pair.image.stem for pair in read(strange).pairs] == ["b", "über 1.5"]


def test_one_name_in_two_spellings_is_one_name(root: Path) -> None:
    (root / "train" / "a.png").rename(root / "train" / unicodedata.normalize("NFC", "é.png"))
    (root / "trainannot" / "a.png").rename(root / "trainannot" / unicodedata.normalize("NFD", "é.png"))
    assert len(read(root)) == 2
    (root / "train" / "b.png").rename(root / "train" / unicodedata.normalize("NFD", "é.png"))
    refused(root, "same stem")


def test_the_case_of_a_suffix_does_not_matter(root: Path) -> None:
    (root / "train" / "a.png").rename(root / "train" / "a.PNG")
    (root / "trainannot" / "b.png").rename(root / "trainannot" / "b.Png")
    assert len(read(root)) == 2


def test_the_order_of_the_file_system_does_not_matter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [pair.image.name for pair in read(root).pairs]
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
    assert [pair.image.name for pair in read(root).pairs] == expected == ["a.png", "b.png"]


def test_a_mask_that_is_all_void_is_read(root: Path) -> None:
    Image.fromarray(np.full(SIZE, 11, np.uint8)).save(root / "trainannot" / "a.png")
    data = read(root)
    assert int(data.class_image_pixels[11]) == 96
    assert bool((data[0][1] == data.ignore_index).all())


# --- what is refused --------------------------------------------------------------------------------------------------


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def make_dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere.png")


@pytest.mark.parametrize("folder", ["train", "trainannot"])
@pytest.mark.parametrize("damage", [make_folder, make_loop, make_dangling_link])
def test_a_name_that_is_no_file(root: Path, folder: str, damage: Callable[[Path], None]) -> None:
    damage(root / folder / "a.png")
    refused(root, root / folder / "a.png", "is no file")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 60_000, 2_000_000_000])
def test_a_decompression_bomb_is_refused_by_its_header(root: Path, side: int) -> None:
    (root / "train" / "a.png").write_bytes(bomb(side, side))
    refused(root, root / "train" / "a.png", f"{side}x{side} pixels; allowed are 50,000,000")


def test_the_limit_of_pixels_is_exact(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(bomb(MAX_PIXELS + 1, 1))
    with pytest.raises(DataError, match=r"x\.png: 50000001x1 pixels; allowed are 50,000,000 in all"):
        read_image(tmp_path / "x.png")


def test_a_binary_mask_is_told_how_to_be_named(root: Path) -> None:
    Image.fromarray((ids() % 2) * np.uint8(255)).save(root / "trainannot" / "a.png")
    refused(
        root, "a.png", "value 255 (24 pixels)", "binary", "classes: {background: 0, object: 255}", "src.datasets.folder.Folder"
    )


def test_a_mask_of_floats(root: Path) -> None:
    Image.fromarray(ids().astype(np.float32)).save(root / "trainannot" / "a.tiff")
    (root / "trainannot" / "a.tiff").rename(root / "trainannot" / "a.png")
    refused(root, "a.png", "cannot be read as a PNG image")


def png(depth: int, color_type: int, rows: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, of a kind that Pillow does not write; `rows` are its bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    header = (rows.shape[1] * 8 // bits).to_bytes(4, "big") + rows.shape[0].to_bytes(4, "big")
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    middle = b"".join(chunk(*extra) for extra in chunks)
    header += bytes([depth, color_type, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "color_type", "message"),
    [
        (16, 2, "a colour mask of 16 bits"),
        (16, 4, "a colour mask of 16 bits"),
        (16, 6, "a colour mask of 16 bits"),
        (4, 0, "a grey mask of 4 bits"),
        (2, 0, "a grey mask of 2 bits"),
    ],
)
def test_masks_that_pillow_reads_otherwise_than_they_are_stored(root: Path, depth: int, color_type: int, message: str) -> None:
    bits = SIZE[1] * depth * {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    rows = np.full((SIZE[0], bits // 8), 255 if color_type in (4, 6) else 0, np.uint8)
    (root / "trainannot" / "a.png").write_bytes(png(depth, color_type, rows))
    refused(root, root / "trainannot" / "a.png", message, "save it with 8 bits")


@pytest.mark.parametrize("suffix", ["JPEG", "BMP", "TIFF", "GIF"])
def test_a_mask_of_another_kind_under_the_name_of_a_png(root: Path, suffix: str) -> None:
    """JPEG bytes would be 26 percent other classes, and nobody would see it."""
    buffer = io.BytesIO()
    Image.fromarray(ids()).save(buffer, suffix)
    (root / "trainannot" / "a.png").write_bytes(buffer.getvalue())
    refused(root, root / "trainannot" / "a.png", "cannot be read as a PNG image", labels="index", num_classes=33)


EXIF_DAMAGE = {
    "no header": (b"eXIf", b"garbage"),
    "cut off": (b"eXIf", b"MM\0*"),
    "as text": (b"tEXt", b"Raw profile type exif\0\nexif\n9\nnot hexadecimal"),
}


@pytest.mark.parametrize("folder", ["train", "trainannot"])
@pytest.mark.parametrize("damage", EXIF_DAMAGE)
def test_damaged_tags_are_told_in_one_line(root: Path, folder: str, damage: str) -> None:
    color_type, width = (2, 3 * SIZE[1]) if folder == "train" else (0, SIZE[1])
    rows = np.zeros((SIZE[0], width), np.uint8)
    (root / folder / "a.png").write_bytes(png(8, color_type, rows, EXIF_DAMAGE[damage]))
    refused(root, root / folder / "a.png", "cannot be read")


@pytest.mark.parametrize("orientation", [0, 1, 42])
def test_a_tag_that_turns_nothing(root: Path, orientation: int) -> None:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    Image.fromarray(random_image(3)).save(root / "train" / "a.png", exif=tags)
    np.testing.assert_array_equal(read(root)[0][0], random_image(3))


def test_transparency_without_an_alpha_channel_is_told_of(root: Path) -> None:
    rows = np.zeros((SIZE[0], 3 * SIZE[1]), np.uint8)
    rows[:, :3] = 9
    (root / "train" / "a.png").write_bytes(png(8, 2, rows, (b"tRNS", b"\0\x09\0\x09\0\x09")))
    assert [note.partition(",")[0] for note in read(root).notes] == ["1 files have transparent pixels"]
    assert "(6 pixels)" in read(root).notes[0]


@pytest.mark.parametrize("values", [[0, 255], [0, 255, 1]])
def test_masks_of_0_and_255_where_255_is_ignored(root: Path, values: list[int]) -> None:
    """The most natural wrong thing to ask for: all of the object would be void."""
    for name in "ab":
        mask = np.array(values, np.uint8)[np.arange(48).reshape(SIZE) % len(values)]
        Image.fromarray(mask).save(root / "trainannot" / f"{name}.png")
    if len(values) == 3:
        assert len(read(root, labels="index", num_classes=2)) == 2
    else:
        refused(root, root, "255 is a class", "classes: {background: 0, object: 255}", labels="index", num_classes=2)


def test_one_image_is_a_split(root: Path) -> None:
    for folder in ("train", "trainannot"):
        (root / folder / "b.png").unlink()
    data = read(root)
    assert len(data) == 1
    np.testing.assert_array_equal(data.batch([(0, 0)])[0][0].numpy(), random_image(0))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS keeps names in UTF-8 alone")
def test_a_name_that_is_no_utf8(root: Path) -> None:
    for folder in ("train", "trainannot"):
        (root / folder / "a.png").rename(root / folder / os.fsdecode(b"caf\xe9.png"))
    assert len(read(root)) == 2


def test_a_table_that_is_no_utf8(root: Path) -> None:
    (root / "label_colors.txt").write_bytes(b"1 2 3 Caf\xe9\n")
    refused(root, root / "label_colors.txt", "not a text in UTF-8", "byte 9")


# --- any bytes --------------------------------------------------------------------------------------------------------


def encode(mode: str, size: tuple[int, int], suffix: str, seed: int) -> bytes:
    generator = np.random.default_rng(seed)
    channels = {"1": 1, "L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2}[mode]
    pixels = generator.integers(0, 12, size[0] * size[1] * channels, np.uint8)
    image = Image.new(mode, size) if mode == "1" else Image.frombytes(mode, size, pixels.tobytes())
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, suffix)
    return buffer.getvalue()


def with_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    """The PNG with another chunk behind its header."""
    chunk = len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return content[:33] + chunk + content[33:]


PNG = st.sampled_from(["1", "L", "P", "LA", "RGB", "RGBA", "I;16"]).map(lambda mode: (mode, "PNG"))
JPEG = st.sampled_from(["L", "RGB", "CMYK"]).map(lambda mode: (mode, "JPEG"))
KINDS = st.one_of(PNG, JPEG)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A file of some kind, as it was or with bytes changed, cut off or put in; or no picture at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    mode, suffix = draw(KINDS)
    content = bytearray(encode(mode, (draw(st.integers(1, 20)), draw(st.integers(1, 20))), suffix, draw(st.integers(0, 99))))
    if suffix == "PNG" and draw(st.booleans()):
        kind = draw(st.sampled_from([b"eXIf", b"tRNS", b"tEXt", b"iCCP", b"gAMA"]))
        data = draw(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(lambda rest: b"MM\0*\0\0\0\x08" + rest)))
        content = bytearray(with_chunk(bytes(content), kind, data))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "remove"]))
        if kind == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            del content[place : place + draw(st.integers(1, 8))]
    return bytes(content)


def read_or_complain(read: Callable[[], np.ndarray], file: Path) -> np.ndarray | None:
    """The array, or None where reading ended with one line that names the file."""
    try:
        return read()
    except DataError as error:
        complaint = str(error)
    assert complaint.startswith(f"{file}: ")
    assert "\n" not in complaint
    return None


@settings(max_examples=400, deadline=None)
@given(content=damaged_files(), suffix=st.sampled_from([".png", ".jpg"]))
def test_any_bytes_give_an_array_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    file = tmp_path_factory.mktemp("fuzz") / f"x{suffix}"
    file.write_bytes(content)
    image = read_or_complain(lambda: read_image(file).pixels, file)
    if image is not None:
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        expected = decode_elsewhere(content)
        if expected is not None:
            np.testing.assert_array_equal(image, expected)
    mask = read_or_complain(lambda: camvid_labels("camvid11").decode(read_mask(file).pixels, file)[0], file)
    if mask is not None:
        assert (mask.dtype, mask.ndim) == (np.uint8, 2)
        assert int(mask.max()) <= 11
        np.testing.assert_array_equal(mask, stored_ids_elsewhere(content, mask))


def stored_ids_elsewhere(content: bytes, ours: np.ndarray) -> np.ndarray:
    """The ids by OpenCV, of an 8-bit grey mask without tags; ours for what OpenCV reads otherwise."""
    import cv2

    if content[24:26] != b"\x08\x00" or any(kind in content for kind in (b"eXIf", b"tEXt", b"tRNS")):
        return ours
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return ours if decoded is None else decoded


def decode_elsewhere(content: bytes) -> np.ndarray | None:
    """What OpenCV makes of an RGB PNG; None for what it reads otherwise than Pillow does by rule."""
    import cv2

    if not content.startswith(b"\x89PNG") or len(content) < 26 or content[24:26] != b"\x08\x02":
        return None
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    return decoded if decoded is not None and b"eXIf" not in content and b"tRNS" not in content else None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(root: Path) -> None:
    (root / "train" / "a.png").chmod(0)
    refused(root, root / "train" / "a.png", "cannot be opened")
