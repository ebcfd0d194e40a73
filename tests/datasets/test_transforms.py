"""Every transform of albumentations: it keeps samples and class ids, or is refused in one line that names it."""

import contextlib
import inspect
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from conftest import write_split
from PIL import Image

from src.datasets import augmentation as module
from src.datasets.augmentation import Augmentation
from src.datasets.camvid import CamVid
from src.datasets.folder import Folder
from src.datasets.reader import SegmentationDataset
from src.errors import ConfigError

SIZE = (48, 64)
ABSTRACT = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}
# Where defaults do not construct a transform, or hide what it can do.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Affine": {"rotate": (-40, 40), "scale": (0.5, 1.2), "shear": (-10, 10)},
    "AtLeastOneBBoxRandomCrop": {"height": 20, "width": 20},
    "CenterCrop": {"height": 60, "width": 20, "pad_if_needed": True},
    "CenterCrop3D": {"size": (2, 8, 8)},
    "CoarseDropout": {"fill_mask": 0},
    "ConstrainedCoarseDropout": {"mask_indices": [3], "fill_mask": 0},
    "Crop": {"x_max": 100, "y_max": 60, "pad_if_needed": True},
    "CropAndPad": {"px": (-10, 10)},
    "CropNonEmptyMaskIfExists": {"height": 20, "width": 20},
    "ElasticTransform": {"alpha": 200, "sigma": 10},
    "Erasing": {"fill_mask": 0},
    "GridDistortion": {"normalized": False},
    "GridDropout": {"fill_mask": 0},
    "GridElasticDeform": {"num_grid_xy": (4, 4), "magnitude": 20},
    "LongestMaxSize": {"max_size": 40},
    "OpticalDistortion": {"distort_limit": 0.9},
    "Pad": {"padding": 5},
    "Pad3D": {"padding": 2},
    "PadIfNeeded": {"min_height": 80, "min_width": 80},
    "PadIfNeeded3D": {"min_zyx": (4, 60, 60)},
    "Perspective": {"scale": (0.1, 0.2), "fit_output": True},
    "PiecewiseAffine": {"scale": (0.05, 0.1)},
    "PixelDropout": {"mask_drop_value": 0},
    "RandomCrop": {"height": 60, "width": 20, "pad_if_needed": True},
    "RandomCrop3D": {"size": (2, 8, 8)},
    "RandomResizedCrop": {"size": (40, 40)},
    "RandomSizedBBoxSafeCrop": {"height": 20, "width": 20},
    "RandomSizedCrop": {"min_max_height": (20, 40), "size": (40, 40)},
    "Resize": {"height": 33, "width": 77},
    "SmallestMaxSize": {"max_size": 40},
    "TextImage": {"font_path": "none.ttf"},
    "XYMasking": {"num_masks_x": 2, "num_masks_y": 2, "mask_x_length": (5, 9), "mask_y_length": (5, 9), "fill_mask": 0},
}
PAD = {
    "Affine",
    "CenterCrop",
    "Crop",
    "CropAndPad",
    "ElasticTransform",
    "GridDistortion",
    "OpticalDistortion",
    "Pad",
    "PadIfNeeded",
}
PAD |= {"Perspective", "RandomCrop", "Rotate", "SafeRotate", "ShiftScaleRotate", "ThinPlateSpline"}
DROP = {"CoarseDropout", "ConstrainedCoarseDropout", "Erasing", "FrequencyMasking", "GridDropout", "MaskDropout", "PixelDropout"}
DROP |= {"TimeMasking", "XYMasking"}
NEED_MORE = {"BBoxSafeRandomCrop", "FDA", "HistogramMatching", "Mosaic", "OverlayElements", "PixelDistributionAdaptation"}
NEED_MORE |= {"RandomCropNearBBox", "RandomSizedBBoxSafeCrop", "TextImage"}
NEED_VOLUMES = {"CenterCrop3D", "CoarseDropout3D", "CubicSymmetry", "PadIfNeeded3D", "RandomCrop3D"}
NO_SAMPLES = {"FromFloat", "Normalize", "ToFloat", "ToTensorV2"}
NO_IDS = {"GridElasticDeform", "Morphological"}
SIZES_BY_CHANCE = {"D4", "RandomCropFromBorders", "RandomRotate90", "RandomScale", "SquareSymmetry"} - {"Perspective"}
REFUSED = NEED_MORE | NEED_VOLUMES | NO_SAMPLES | NO_IDS | SIZES_BY_CHANCE


def transforms() -> list[str]:
    classes = inspect.getmembers(A, lambda item: isinstance(item, type) and issubclass(item, A.BasicTransform))
    return [name for name, _ in classes if name not in ABSTRACT]


MOVING = [name for name in transforms() if issubclass(getattr(A, name), A.DualTransform)]


def make(name: str, **more: Any) -> A.BasicTransform:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ShiftScaleRotate recommends Affine
        return getattr(A, name)(**{"p": 1.0, **ARGUMENTS.get(name, {}), **more})


def write(root: Path, masks: list[np.ndarray], images: list[np.ndarray] | None = None) -> None:
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number, mask in enumerate(masks):
        image = images[number] if images else noise.integers(0, 256, (*mask.shape, 3), np.uint8)
        Image.fromarray(image).save(root / "train" / f"{number}.png")
        Image.fromarray(mask).save(root / "trainannot" / f"{number}.png")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of blocks: mask 3 where the image is white, mask 7 where it is grey; black is not there."""
    root = tmp_path_factory.mktemp("blocks")
    coarse = np.random.default_rng(2).integers(0, 2, (2, *SIZE), np.uint8)[:, ::8, ::8]
    white = [np.kron(one, np.ones((8, 8), np.uint8)).astype(bool) for one in coarse]
    images = [np.dstack([np.where(one, 255, 85).astype(np.uint8)] * 3) for one in white]
    write(root, [np.where(one, 3, 7).astype(np.uint8) for one in white], images)
    return root


def refusal(root: Path, *given: A.BasicTransform | A.BaseCompose, **arguments: Any) -> str:
    """The message, of one line, that keeps a data set with these transforms from being made."""
    with pytest.raises(ConfigError) as raised:
        CamVid(str(root), "train", cache="memory", augmentation=Augmentation(given), **arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_lists_above_are_of_transforms_that_exist() -> None:
    assert set(transforms()) >= set(ARGUMENTS) | PAD | DROP | REFUSED
    assert len(transforms()) > 100


@pytest.mark.filterwarnings("ignore:The image is already an RGB")  # ToRGB
@pytest.mark.parametrize("name", sorted(set(transforms()) - REFUSED))
def test_a_transform_invents_no_id(blocks: Path, name: str) -> None:
    transform = make(name)
    data = CamVid(str(blocks), "train", cache="memory", augmentation=Augmentation([transform]))
    found: set[int] = set()
    for key in [(epoch, index) for epoch in range(10) for index in (0, 1)]:
        image, mask = data[key]
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == (*mask.shape, 3)
        found |= set(np.unique(mask).tolist())
    assert found == ({3, 7, 11} if name in PAD | DROP else {3, 7})


@pytest.mark.parametrize(
    "name", sorted(name for name in set(transforms()) - REFUSED - DROP if issubclass(getattr(A, name), A.DualTransform))
)
@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_NEAREST])
def test_image_and_mask_move_together(blocks: Path, name: str, interpolation: int) -> None:
    """Grey levels say which id each pixel of the image shows: 255 is 3, 85 is 7, and 0 is what was filled in."""
    has_rule = "interpolation" in inspect.signature(getattr(A, name)).parameters
    transform = make(name, **({"interpolation": interpolation} if has_rule else {}))
    data = CamVid(str(blocks), "train", cache="memory", augmentation=Augmentation([transform]))
    agreement = []
    for key in [(epoch, index) for epoch in range(10) for index in (0, 1)]:
        image, mask = data[key]
        grey = image[..., 0]
        agreement.append((np.select([grey >= 170, grey >= 43], [3, 7], 11) == mask).mean())
    exact = not has_rule or interpolation == cv2.INTER_NEAREST
    assert np.mean(agreement) == 1 if exact else np.mean(agreement) > 0.97


def next_ids(mask: np.ndarray, **_: Any) -> np.ndarray:
    return mask + 1


def in_int64(mask: np.ndarray, **_: Any) -> np.ndarray:
    return mask.astype(np.int64)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refusal_names_the_transform(blocks: Path, name: str) -> None:
    message = refusal(blocks, make("HorizontalFlip"), A.OneOf([make(name), make("HorizontalFlip")], p=0.1))  # rare and nested
    assert name in message
    assert "augmentation" in message
    assert message.endswith(("leave it out", f"leave {name} out", "end its transforms at that size"))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ([A.Normalize()], ["Normalize gives an image float32 [48, 64, 3]"]),
        ([A.ToFloat(p=0.02), A.HorizontalFlip()], ["ToFloat gives an image float32"]),
        ([A.HorizontalFlip(), A.ToTensorV2()], ["ToTensorV2 gives an image torch.uint8 [3, 48, 64]"]),
        ([A.ToGray(num_output_channels=1, p=0.1)], ["ToGray gives an image uint8 [48, 64];"]),
        ([A.RandomCrop(300, 300)], ["RandomCrop fails on an image of 48x64", "(300, 300) vs (48, 64)"]),
        ([A.CenterCrop(20, 65, p=0.05)], ["CenterCrop fails on an image of 48x64"]),
        ([A.RandomCrop(20, 20, p=0.5)], ["48x64", "20x20", "RandomCrop changes the size by chance"]),
        ([A.Sequential([A.RandomCrop(20, 20)], p=0.05)], ["48x64", "20x20", "RandomCrop changes the size"]),
        ([A.RandomRotate90()], ["48x64", "64x48", "RandomRotate90 changes the size"]),
        ([A.Mosaic(p=1)], ["Mosaic", "mosaic_metadata"]),
        ([A.BBoxSafeRandomCrop()], ["BBoxSafeRandomCrop", "it needs 'bboxes'"]),
        ([A.SelectiveChannelTransform([A.HorizontalFlip()], [0])], ["HorizontalFlip in SelectiveChannelTransform moves"]),
        ([A.Lambda(mask=next_ids)], ["Lambda gives a mask with the ids 4, 8, which are none of the sample's"]),
        ([A.Lambda(mask=in_int64)], ["Lambda gives a mask int64 [48, 64]"]),
    ],
    ids=lambda value: type(value[0]).__name__ if isinstance(value[0], A.BasicTransform | A.BaseCompose) else "",
)
def test_what_is_no_sample_is_refused(blocks: Path, given: list[Any], parts: list[str]) -> None:
    message = refusal(blocks, *given)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("cache", ["memory", "none", "device"])
def test_a_size_by_chance_is_refused_before_a_batch(blocks: Path, cache: Any) -> None:
    with pytest.raises(ConfigError, match=r"RandomCrop changes the size by chance; make it certain \(p: 1\)"):
        CamVid(str(blocks), "train", cache=cache, augmentation=Augmentation([A.RandomCrop(20, 20, p=0.5)]))
    crop = Augmentation([A.RandomCrop(20, 20, p=0.9)], from_native=True)
    with pytest.raises(ConfigError, match=r"gave 48x64 where dataset\.image_size is 20x20: RandomCrop changes the size"):
        CamVid(str(blocks), "train", image_size=[20, 20], cache=cache, augmentation=crop)


def test_the_smallest_images_are_tried(tmp_path: Path) -> None:
    masks = [np.full(size, 3, np.uint8) for size in ((40, 40), (20, 60), (60, 18))]
    write(tmp_path, masks)
    for size in ([16, 19], [21, 16]):
        crop = Augmentation([A.RandomCrop(size[0], size[1])], from_native=True)
        with pytest.raises(ConfigError, match="RandomCrop fails on an image of"):
            CamVid(str(tmp_path), "train", image_size=size, augmentation=crop)
    crop = Augmentation([A.RandomCrop(20, 18)], from_native=True)
    assert CamVid(str(tmp_path), "train", image_size=[20, 18], augmentation=crop)[2][1].shape == (20, 18)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (A.RandomResizedCrop((20, 20), mask_interpolation=cv2.INTER_LINEAR), "RandomResizedCrop.mask_interpolation=1"),
        (A.OneOf([A.Rotate(mask_interpolation=cv2.INTER_CUBIC)]), "Rotate.mask_interpolation=2"),
        (A.Compose([A.Resize(20, 20)], mask_interpolation=cv2.INTER_AREA), "Resize.mask_interpolation=3"),
        (A.Resize(20, 20, area_for_downscale="image_mask"), "Resize.area_for_downscale=image_mask"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_ids_are_not_mixed(transform: Any, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Augmentation([A.HorizontalFlip(), transform])
    assert f"augmentation: {words} mixes class ids" in str(raised.value)


def test_what_is_off_or_comes_right_is_not_refused(blocks: Path) -> None:
    off = [A.Normalize(p=0), A.Morphological(p=0), A.RandomCrop(300, 300, p=0)]
    there_and_back = [A.ToFloat(p=1), A.FromFloat(dtype="uint8", p=1)]
    channels = A.SelectiveChannelTransform([A.InvertImg(p=1)], [1])
    data = CamVid(str(blocks), "train", augmentation=Augmentation([*off, *there_and_back, channels]))
    image, mask = data[0]
    plain_image, plain_mask = data.plain(0)
    np.testing.assert_array_equal(image, np.dstack([plain_image[..., 0], 255 - plain_image[..., 1], plain_image[..., 2]]))
    np.testing.assert_array_equal(mask, plain_mask)


def test_a_mask_that_is_not_to_be_filled_is_left_as_it_is(blocks: Path) -> None:
    data = CamVid(str(blocks), "train", augmentation=Augmentation([A.CoarseDropout(p=1)]))  # fill_mask=None by default
    assert (data[0][0] == 0).any()
    np.testing.assert_array_equal(data[0][1], data.plain(0)[1])


def of_camvid(**arguments: Any) -> Callable[[Path, Augmentation], SegmentationDataset]:
    return lambda root, given: CamVid(str(root), "train", cache="memory", augmentation=given, **arguments)


def of_folder(void: Any) -> Callable[[Path, Augmentation], SegmentationDataset]:
    folders = {"train": ["train", "trainannot"]}
    classes = {"sky": 0, "road": 3}
    return lambda root, given: Folder(str(root), "train", folders, classes, void, cache="memory", augmentation=given)


LABEL_SETS = {
    "camvid11": (of_camvid(), 3, 11),
    "index": (of_camvid(labels="index", num_classes=5), 3, 255),
    "index, 4 ignored": (of_camvid(labels="index", num_classes=4, ignore_index=4), 3, 4),
    "camvid11 at 200": (of_camvid(ignore_index=200), 3, 200),
    "folder": (of_folder(255), 1, 255),
    "folder without void": (of_folder(None), 1, 255),
}


def rotated_by_45_degrees(side: int, inside: int, outside: int) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of a square mask of one id, and where that is certain: further than a tenth of a pixel from its edge."""
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    reach = np.maximum(abs(rows + columns), abs(rows - columns)) / np.sqrt(2)  # of where the pixel comes from
    return np.where(reach < side / 2, inside, outside), abs(reach - side / 2) > 0.1


@pytest.mark.parametrize("labels", list(LABEL_SETS))
@pytest.mark.parametrize("nested", [False, True])
def test_corners_that_are_rotated_in_are_ignored(tmp_path: Path, labels: str, nested: bool) -> None:
    make_data, inside, ignore_index = LABEL_SETS[labels]
    write(tmp_path, [np.full((41, 41), 3, np.uint8)])
    rotate: Any = A.Rotate((45, 45), p=1)
    given = A.OneOf([A.Sequential([rotate], p=1)], p=1) if nested else rotate
    data = make_data(tmp_path, Augmentation([given]))
    assert data.ignore_index == ignore_index
    expected, certain = rotated_by_45_degrees(41, inside, ignore_index)
    assert certain.mean() > 0.95
    assert (expected[0, 0], expected[20, 20]) == (ignore_index, inside)
    mask = data[(3, 0)][1]
    np.testing.assert_array_equal(mask[certain], expected[certain])
    assert set(np.unique(mask)) == {inside, ignore_index}


def test_padding_is_ignored_whatever_its_fill_says(tmp_path: Path) -> None:
    write(tmp_path, [np.full((4, 6), 3, np.uint8)])
    for fill in (0, 5, (0, 0, 0)):
        given = Augmentation([A.PadIfNeeded(6, 6, position="top_left", fill_mask=fill, p=1)])
        data = CamVid(str(tmp_path), "train", cache="memory", augmentation=given)
        np.testing.assert_array_equal(data[0][1], [[3] * 6] * 4 + [[11] * 6] * 2)
    mirrored = Augmentation([A.PadIfNeeded(6, 6, border_mode=cv2.BORDER_REFLECT_101, p=1)])
    np.testing.assert_array_equal(CamVid(str(tmp_path), "train", augmentation=mirrored)[0][1], [[3] * 6] * 6)


class Moody(A.ImageOnlyTransform):
    """Gives floats, or fails, at an image that begins with a certain value."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """The image, mostly."""
        if img[0, 0, 0] == 1:
            return img.astype(np.float32)
        if img[0, 0, 0] == 2:
            raise ValueError("I do not like\nthis image")
        return img


@pytest.mark.parametrize(("value", "words"), [(1, "Moody gives an image float32 [4, 4, 3]"), (2, "4x4: I do not like. Change")])
def test_what_only_a_later_image_shows(tmp_path: Path, value: int, words: str) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    write(tmp_path, [np.full((4, 4), 3, np.uint8)] * 2, [image, image + np.uint8(value)])
    data = CamVid(str(tmp_path), "train", augmentation=Augmentation([A.HorizontalFlip(), A.OneOf([Moody(p=1)], p=1)]))
    assert data[0][0].dtype == np.uint8
    with pytest.raises(ConfigError) as raised:
        data.batch([(0, 0), (0, 1)])
    assert words in str(raised.value)
    assert "Moody" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_trying_draws_no_number_that_a_run_uses(blocks: Path) -> None:
    given = [A.OneOf([A.Rotate(p=0.2), A.VerticalFlip(p=0.7)], p=0.3), A.HorizontalFlip(p=0.1)]
    augmentation = Augmentation(given)
    data = CamVid(str(blocks), "train", cache="memory", augmentation=augmentation, seed=4)
    untried = A.Compose([A.OneOf([A.Rotate(p=0.2, fill_mask=11), A.VerticalFlip(p=0.7)], p=0.3), A.HorizontalFlip(p=0.1)])
    reference = Augmentation(untried.transforms)
    for key in [(epoch, index) for epoch in range(20) for index in (0, 1)]:
        for actual, expected in zip(data[key], reference(*data.plain(key[1]), (4, *key)), strict=True):
            np.testing.assert_array_equal(actual, expected)


@contextlib.contextmanager
def counted_samples() -> Iterator[list[int]]:
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        apply = Augmentation._apply
        patch.setattr(Augmentation, "_apply", lambda self, data: calls.append(1) or apply(self, data))
        yield calls


def test_trying_is_cheap(blocks: Path) -> None:
    """All samples have one size here, so one of them is tried; fewer times than an epoch of CamVid has images."""
    for given in ([A.HorizontalFlip()], [A.OneOf([A.HorizontalFlip(), A.VerticalFlip(), A.Rotate()], p=0.01)]):
        with counted_samples() as calls:
            CamVid(str(blocks), "train", cache="memory", augmentation=Augmentation(given))
        assert module.FEWEST_DRAWS <= len(calls) < 40


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_says_it_in_one_line(
    tiny_overrides: list[str], tmp_path: Path, train_process: Callable[..., subprocess.CompletedProcess[str]], num_workers: int
) -> None:
    write_split(tmp_path / "tiny data", "train", 12, (24, 32))
    floats = "[{_target_: albumentations.HorizontalFlip},{_target_: albumentations.Normalize,p: 0.05}]"
    words = [*tiny_overrides, f"loader.num_workers={num_workers}"]
    done = train_process(*words, f"augmentation.transforms={floats}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: augmentation: Normalize gives an image float32 [24, 32, 3]")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "outputs").exists()
    # Smaller than the crop once in fifty times: too rare to be found before training.
    scale = "{_target_: albumentations.RandomScale,scale_limit: [-0.02,1.0],p: 1}"
    rare = f"[{scale},{{_target_: albumentations.RandomCrop,height: 24,width: 32}}]"
    done = train_process(*words, f"augmentation.transforms={rare}", "training.epochs=40")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: augmentation: RandomCrop fails on an image of 24x32: Crop size")
    assert "Traceback" not in done.stderr
