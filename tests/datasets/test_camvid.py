"""CamVid on disk: what is found, what is refused, and that image and mask stay together."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from src.datasets.augmentation import Augmentation
from src.datasets.camvid import CamVid
from src.datasets.label_tables import CAMVID11
from src.errors import ConfigError, DataError

SIZE = (6, 8)
LAYOUTS = {
    "SegNet": {"train": ("train", "trainannot"), "val": ("val", "valannot"), "test": ("test", "testannot")},
    "original": {"train": ("train_images", "train_labels"), "val": ("valid_images", "valid_labels")},
}
# reference/attention-unet-and-camvid.md 2.2: shares in % of the training pixels, void last.
TRAIN_SHARES = [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95]


def random_image(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write_pair(
    root: Path, split: str, name: str, mask: np.ndarray, image: np.ndarray | None = None, layout: str = "SegNet"
) -> None:
    images, masks = (root / folder for folder in LAYOUTS[layout][split])
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_image(size=mask.shape) if image is None else image).save(images / f"{name}.png")
    Image.fromarray(mask).save(masks / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three training pairs and one for validation, whose masks are all of one class."""
    for number, name in enumerate(("b", "c", "a")):
        write_pair(tmp_path, "train", name, np.full(SIZE, number, np.uint8), random_image(number))
    write_pair(tmp_path, "val", "d", np.full(SIZE, 4, np.uint8))
    return tmp_path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_layouts_are_recognised(tmp_path: Path, layout: str) -> None:
    for number, split in enumerate(LAYOUTS[layout]):
        write_pair(tmp_path, split, "x", np.full(SIZE, number, np.uint8), layout=layout)
    for number, split in enumerate(LAYOUTS[layout]):
        data = CamVid(str(tmp_path), split)
        assert len(data) == 1
        assert bool((data[0][1] == number).all())


def test_samples_are_those_of_the_files_sorted_by_name(root: Path) -> None:
    data = CamVid(str(root), "train")
    assert [pair.image.name for pair in data.pairs] == ["a.png", "b.png", "c.png"]
    assert [int(data[i][1][0, 0]) for i in range(3)] == [2, 0, 1]
    for i, number in enumerate((2, 0, 1)):
        image, mask = data[i]
        np.testing.assert_array_equal(image, random_image(number))
        assert (image.dtype, mask.dtype, image.shape, mask.shape) == (np.uint8, np.uint8, (*SIZE, 3), SIZE)


def test_pairs_share_the_stem_not_the_suffix(root: Path) -> None:
    image = Image.open(root / "train" / "a.png")
    image.save(root / "train" / "a.JPG", "JPEG", quality=95)
    (root / "train" / "a.png").unlink()
    pair = CamVid(str(root), "train").pairs[0]
    assert (pair.image.name, pair.mask.name) == ("a.JPG", "a.png")


def test_hidden_and_foreign_files_are_ignored(root: Path) -> None:
    for folder in ("train", "trainannot"):
        (root / folder / ".hidden.png").write_bytes(b"no image")
        (root / folder / "._a.png").write_bytes(b"macOS was here")
        (root / folder / "Thumbs.db").write_bytes(b"Windows was here")
    assert len(CamVid(str(root), "train")) == 3


def test_grey_and_transparent_images_become_rgb(root: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(SIZE)
    Image.fromarray(grey).save(root / "train" / "a.png")
    Image.fromarray(np.dstack([random_image(1), np.full(SIZE, 255, np.uint8)])).save(root / "train" / "b.png")
    data = CamVid(str(root), "train")
    np.testing.assert_array_equal(data[0][0], np.dstack([grey] * 3))
    np.testing.assert_array_equal(data[1][0], random_image(1))


def test_palette_masks_give_indices(root: Path) -> None:
    indices = np.arange(48, dtype=np.uint8).reshape(SIZE) % 12
    mask = Image.frombytes("P", (SIZE[1], SIZE[0]), indices.tobytes())
    mask.putpalette([value for label in CAMVID11 for value in label.color] + [0, 0, 0])
    mask.save(root / "trainannot" / "a.png")
    with Image.open(root / "trainannot" / "a.png") as saved:
        assert saved.mode == "P"
    np.testing.assert_array_equal(CamVid(str(root), "train")[0][1], indices)


def test_training_varies_with_the_epoch_and_validation_never(root: Path) -> None:
    flips = Augmentation([A.HorizontalFlip(p=0.5)])
    train, val = CamVid(str(root), "train", augmentation=flips), CamVid(str(root), "val")
    original = random_image(2)
    seen = {train[(epoch, 0)][0].tobytes() for epoch in range(20)}
    assert seen == {original.tobytes(), original[:, ::-1].tobytes()}
    assert len({val[(epoch, 0)][0].tobytes() for epoch in range(20)}) == 1
    assert val[0][0].tobytes() == val[(5, 0)][0].tobytes()
    np.testing.assert_array_equal(train[0][0], train[(0, 0)][0])


def test_another_seed_augments_otherwise(root: Path) -> None:
    flips = Augmentation([A.HorizontalFlip(p=0.5)])

    def outcomes(seed: int) -> list[bytes]:
        data = CamVid(str(root), "train", augmentation=flips, seed=seed)
        return [data[(epoch, 0)][0].tobytes() for epoch in range(20)]

    assert outcomes(1) == outcomes(1)
    assert outcomes(1) != outcomes(2)


def test_augmenting_does_not_change_what_is_kept(root: Path) -> None:
    data = CamVid(str(root), "train", augmentation=Augmentation([A.HorizontalFlip(p=1.0), A.Erasing(p=1.0)]))
    for epoch in range(3):
        assert data[(epoch, 0)][0].tobytes() != random_image(2).tobytes()
    np.testing.assert_array_equal(data.samples[0][0], random_image(2))


def test_samples_of_their_own_size_make_batches(root: Path) -> None:
    images, masks = CamVid(str(root), "train").batch([0, (4, 1), 2])
    assert images.shape == (3, *SIZE, 3)
    assert masks.shape == (3, *SIZE)
    assert images.dtype == masks.dtype == torch.uint8


@pytest.mark.parametrize("size", [(224, 224), (100, 130), (61, 77)], ids=str)
def test_image_and_mask_stay_aligned_through_the_resize(tmp_path: Path, size: tuple[int, int]) -> None:
    """The image is white where the mask is Road, so that after the resize it still says what the mask should be."""
    coarse = np.random.default_rng(0).integers(0, 2, (36, 48), np.uint8)
    mask = np.kron(coarse, np.full((10, 10), 3, np.uint8))
    write_pair(tmp_path, "train", "x", mask, np.dstack([mask // 3 * 255] * 3))
    image, resized = CamVid(str(tmp_path), "train", image_size=size)[0]
    assert image.shape == (*size, 3)
    assert resized.shape == size
    assert set(np.unique(resized)) == {0, 3}
    truth = np.where(image[..., 0] >= 128, 3, 0)
    floored = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    assert (resized == truth).mean() > 0.99
    assert (floored == truth).mean() < 0.98  # what the usual rule would give


def test_ids_are_counted_before_the_resize(tmp_path: Path) -> None:
    first = np.zeros(SIZE, np.uint8)
    first[0, :5], first[1, 0] = 8, 11
    write_pair(tmp_path, "train", "x", first)
    write_pair(tmp_path, "train", "y", np.full((4, 4), 3, np.uint8))
    data = CamVid(str(tmp_path), "train", image_size=[3, 3])
    expected, in_images = np.zeros(256, np.int64), np.zeros(256, np.int64)
    expected[[0, 3, 8, 11]] = [42, 16, 5, 1]
    in_images[[0, 3, 8, 11]] = [48, 16, 48, 48]
    np.testing.assert_array_equal(data.class_pixels, expected)
    np.testing.assert_array_equal(data.class_image_pixels, in_images)
    assert data[0][1].shape == data[1][1].shape == (3, 3)


def test_the_fingerprint_follows_pixels_and_names(root: Path) -> None:
    before = CamVid(str(root), "train").fingerprint
    assert CamVid(str(root), "train", image_size=[3, 3]).fingerprint == before
    Image.open(root / "train" / "a.png").save(root / "train" / "a.png", compress_level=0)
    assert CamVid(str(root), "train").fingerprint == before
    image = random_image(2)
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(root / "train" / "a.png")
    assert CamVid(str(root), "train").fingerprint != before


def refused(kind: type[Exception], root: Path, *parts: object, split: str = "train", **arguments: Any) -> None:
    """The one error of reading this split names all of these."""
    with pytest.raises(kind) as caught:
        CamVid(str(root), split, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if str(part) not in message] == [], message


def test_a_missing_root_names_both_ways_to_get_data(tmp_path: Path) -> None:
    refused(DataError, tmp_path / "nowhere", tmp_path / "nowhere", "dataset.root=FOLDER", "dataset=streets", "trainannot")


def test_an_image_without_mask(root: Path) -> None:
    (root / "trainannot" / "b.png").unlink()
    refused(DataError, root, root / "train" / "b.png", "no mask", root / "trainannot")


def test_a_mask_without_image(root: Path) -> None:
    (root / "train" / "b.png").unlink()
    refused(DataError, root, root / "trainannot" / "b.png", "no image", root / "train")


def test_many_images_without_mask_are_named_in_part(root: Path) -> None:
    for number in range(9):
        Image.fromarray(random_image()).save(root / "train" / f"z{number}.png")
    refused(DataError, root, "z0.png", "z4.png", "and 4 more")


def test_other_sizes_of_image_and_mask(root: Path) -> None:
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(root / "trainannot" / "b.png")
    refused(DataError, root, root / "train" / "b.png", root / "trainannot" / "b.png", "6x8", "6x7")


def test_an_id_that_is_no_class(root: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[0, :3] = 12
    Image.fromarray(mask).save(root / "trainannot" / "b.png")
    refused(DataError, root, root / "trainannot" / "b.png", "value 12 (3 pixels)", "0 to 10 and 11")
    refused(DataError, root, "value 12 (3 pixels)", "0 to 3 and 255", labels="index", num_classes=4)
    assert CamVid(str(root), "train", labels="index", num_classes=13).num_classes == 13


def test_void_is_no_class_of_index_labels_unless_counted(root: Path) -> None:
    Image.fromarray(np.full(SIZE, 11, np.uint8)).save(root / "trainannot" / "b.png")
    assert CamVid(str(root), "train").ignore_index == 11
    refused(DataError, root, "value 11 (48 pixels)", labels="index", num_classes=11)
    data = CamVid(str(root), "train", labels="index", num_classes=33)
    assert (data.num_classes, data.ignore_index, len(data.classes)) == (33, 255, 11)
    assert CamVid(str(root), "train", labels="index", num_classes=11, ignore_index=11).ignore_index == 11


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scribble(path: Path) -> None:
    path.write_bytes(b"this is no image")


@pytest.mark.parametrize("folder", ["train", "trainannot"])
@pytest.mark.parametrize(("damage", "word"), [(truncate, "cannot be read"), (empty, "empty"), (scribble, "cannot be read")])
def test_damaged_files(root: Path, folder: str, damage: Callable[[Path], None], word: str) -> None:
    damage(root / folder / "b.png")
    refused(DataError, root, root / folder / "b.png", word, "copy it again")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_cut_anywhere_is_refused_or_whole(root: Path, suffix: str) -> None:
    """Whatever the decoder raises at each cut becomes a DataError; what it takes has lost no pixel."""
    (root / "train" / "a.png").unlink()
    file = root / "train" / f"a.{suffix}"
    Image.fromarray(random_image(2)).save(file)
    whole, expected = file.read_bytes(), CamVid(str(root), "train")[0][0]
    messages = []
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        file.write_bytes(whole[:length])
        try:
            image = CamVid(str(root), "train")[0][0]
        except DataError as error:
            messages.append(str(error))
        else:
            np.testing.assert_array_equal(image, expected)
    assert len(messages) > 50
    assert all(str(file) in message for message in messages)


def see_through(path: Path) -> None:
    Image.new("RGBA", (SIZE[1], SIZE[0])).save(path)


def other_suffix(path: Path) -> None:
    Image.new("L", (SIZE[1], SIZE[0])).save(path.with_suffix(".jpg"))
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"), [(see_through, ["b.png", "48 pixels", "not opaque"]), (other_suffix, ["b.jpg", "must be a PNG"])]
)
def test_masks_whose_values_are_not_safe(root: Path, damage: Callable[[Path], None], words: list[str]) -> None:
    damage(root / "trainannot" / "b.png")
    refused(DataError, root, *words)


def test_an_empty_split(root: Path) -> None:
    for file in (root / "val").iterdir():
        file.unlink()
    refused(DataError, root, root / "val", "no image", ".png, .jpg, .jpeg", split="val")


def test_a_split_without_folder(root: Path) -> None:
    refused(DataError, root, root, "no test split", "has train, val", split="test")


@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_two_files_with_one_stem(root: Path, folder: str) -> None:
    Image.fromarray(random_image()).save(root / folder / "b.jpg")
    refused(DataError, root, root / folder, "b.jpg", "b.png", "same stem")


def test_both_layouts_at_once(root: Path) -> None:
    write_pair(root, "train", "x", np.zeros(SIZE, np.uint8), layout="original")
    refused(DataError, root, root, "segnet", "original_script", "dataset.layout=segnet or")
    assert len(CamVid(str(root), "train", layout="segnet")) == 3
    assert len(CamVid(str(root), "train", layout="original_script")) == 1


def test_the_original_layout_has_no_test_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_pair(tmp_path, split, "x", np.zeros(SIZE, np.uint8), layout="original")
    refused(DataError, tmp_path, tmp_path, "original_script", "no test split", "train, val", split="test")


def test_native_sizes_that_differ_need_an_image_size(root: Path) -> None:
    write_pair(root, "train", "c", np.zeros((8, 8), np.uint8))
    refused(DataError, root, root / "train" / "c.png", "8x8", root / "train" / "a.png", "6x8", "dataset.image_size")
    assert CamVid(str(root), "train", image_size=[4, 4])[2][1].shape == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"labels": "index"}, ["dataset.labels=index", "dataset.num_classes=N"]),
        ({"num_classes": 10}, ["dataset.num_classes=10", "at least 11"]),
        ({"labels": "index", "num_classes": 1}, ["dataset.num_classes=1", "2 to 255"]),
        ({"labels": "index", "num_classes": 256}, ["dataset.num_classes=256", "2 to 255"]),
        ({"ignore_index": 3}, ["dataset.ignore_index=3", "no class"]),
        ({"labels": "index", "num_classes": 20, "ignore_index": 19}, ["dataset.ignore_index=19", "no class"]),
        ({"ignore_index": -100}, ["dataset.ignore_index=-100", "up to 255"]),
        ({"ignore_index": 256}, ["dataset.ignore_index=256", "up to 255"]),
        ({"image_size": [224]}, ["dataset.image_size=[224]", "[height,width]"]),
        ({"image_size": [224, 0]}, ["dataset.image_size=[224, 0]", "[height,width]"]),
        ({"image_size": [-4, 4]}, ["dataset.image_size=[-4, 4]", "[height,width]"]),
        ({"image_size": [4, 4, 3]}, ["dataset.image_size=[4, 4, 3]", "[height,width]"]),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(root: Path, arguments: dict[str, Any], parts: list[str]) -> None:
    refused(ConfigError, root, *parts, **arguments)


def test_more_channels_than_classes_are_allowed(root: Path) -> None:
    data = CamVid(str(root), "train", num_classes=33)
    assert (data.num_classes, data.ignore_index, len(data.classes)) == (33, 11, 11)


def test_an_augmentation_that_ends_at_another_size_is_refused(root: Path) -> None:
    crop = Augmentation([A.RandomCrop(3, 3)])
    with pytest.raises(ConfigError, match=r"augmentation gave 3x3 where dataset\.image_size is 4x5"):
        CamVid(str(root), "train", image_size=[4, 5], augmentation=crop)


needs_camvid = pytest.mark.skipif("CAMVID_ROOT" not in os.environ, reason="CAMVID_ROOT is not set: no CamVid to read")


@needs_camvid
@pytest.mark.parametrize(("split", "num_images"), [("train", 367), ("val", 101), ("test", 233)])
def test_the_real_camvid(split: str, num_images: int) -> None:
    data = CamVid(os.environ["CAMVID_ROOT"], split)
    assert len(data) == num_images
    assert {sample[1].shape for sample in data.samples} == {(360, 480)}
    assert int(data.class_pixels.sum()) == num_images * 360 * 480
    assert int(data.class_pixels[12:].sum()) == 0
    if split == "train":
        shares = data.class_pixels[:12] / data.class_pixels.sum() * 100
        np.testing.assert_allclose(shares, TRAIN_SHARES, rtol=0, atol=0.01)
