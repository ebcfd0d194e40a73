"""Randomness that depends on (seed, epoch, index) alone, and the order of an epoch."""

from collections import Counter
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from src.build import build_part
from src.datasets.augmentation import Augmentation, resize
from src.datasets.batches import Batches
from src.datasets.camvid import CamVid
from src.datasets.sampler import EpochSampler
from src.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "conf" / "augmentation").glob("*.yaml"))
IDS = (0, 3, 8, 11)
EVERYTHING = [
    A.HorizontalFlip(p=0.5),
    A.OneOf([A.RandomBrightnessContrast(p=1.0), A.Sequential([A.GaussNoise(p=1.0), A.VerticalFlip(p=0.5)])], p=0.8),
    A.RandomCrop(6, 6),
    A.ColorJitter(p=0.5),
]


def sample(height: int = 12, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    mask = np.array(IDS, np.uint8)[generator.integers(0, len(IDS), (height, width))]
    return generator.integers(0, 256, (height, width, 3), np.uint8), mask


def apply(augmentation: Augmentation, *key: int) -> tuple[bytes, bytes]:
    image, mask = augmentation(*sample(), key)
    return image.tobytes(), mask.tobytes()


def build(file: Path, image_size: list[int] | None) -> Augmentation:
    """What a YAML of conf/augmentation says beside `dataset.image_size`."""
    whole = OmegaConf.create({"dataset": {"image_size": image_size}, "augmentation": OmegaConf.load(file)})
    node: Any = OmegaConf.to_container(whole, resolve=True)
    return build_part("augmentation", node["augmentation"])


def test_one_key_gives_one_result() -> None:
    first, second = Augmentation(EVERYTHING), Augmentation(EVERYTHING)
    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 5) for index in (0, 1, 2)]
    expected = [apply(first, *key) for key in keys]
    assert len(set(expected)) == len(keys)  # a different seed, epoch or index gives something else
    np.random.seed(3)
    torch.manual_seed(3)
    assert [apply(second, *key) for key in reversed(keys)] == expected[::-1]  # whatever the order
    assert [apply(first, *key) for key in keys] == expected


def test_two_flips_are_fair_and_independent() -> None:
    flips = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = 1  # where this pixel ends tells which flips were made
    outcomes = []
    for epoch in range(20):
        for index in range(50):
            row, column = np.argwhere(flips(image, image[..., 0], (0, epoch, index))[0][..., 0])[0].tolist()
            outcomes.append((row, column))
    counted, expected = Counter(outcomes), len(outcomes) / 4
    assert len(counted) == 4
    chi_square = sum((number - expected) ** 2 / expected for number in counted.values())
    assert chi_square < 16.27  # 3 degrees of freedom, p = 0.001; the keys are fixed, so this never flickers
    columns = np.array([column for _, column in outcomes]).reshape(20, 50)
    for first, second in ((columns[:, 1:], columns[:, :-1]), (columns[1:], columns[:-1])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1  # neighbours in index, then in epoch


def test_image_and_mask_are_flipped_together() -> None:
    image, mask = sample()
    image[..., 0] = mask
    flips = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    for index in range(12):
        flipped_image, flipped_mask = flips(image, mask, (0, 0, index))
        np.testing.assert_array_equal(flipped_image[..., 0], flipped_mask)


def test_the_glob_finds_augmentations() -> None:
    assert {"none", "flip", "original", "crop"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_augmentation_of_conf_keeps_ids_and_size(file: Path) -> None:
    augmentation = build(file, [10, 14])
    height, width = (24, 32) if augmentation.from_native else (10, 14)
    image, mask = sample(height, width)
    outcomes = set()
    for index in range(30):
        new_image, new_mask = augmentation(image, mask, (0, 0, index))
        assert new_image.shape == (10, 14, 3)
        assert new_mask.shape == (10, 14)
        assert new_image.dtype == new_mask.dtype == np.uint8
        assert set(np.unique(new_mask)) <= set(IDS)
        outcomes.add(new_image.tobytes())
    assert len(outcomes) == {"none": 1, "flip": 2, "original": 4}.get(file.stem, len(outcomes))
    assert len(outcomes) > 1 or file.stem == "none"


def crop_agreement(root: Path, **changed: Any) -> float:
    """Share of mask pixels that conf's crop leaves where its image says; the image is white where the mask is Road."""
    node: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "augmentation" / "crop.yaml"))
    node["transforms"] = node["transforms"][:2]  # without recolouring, which shifts what is white
    node["transforms"][0] |= {"size": [56, 64], **changed}
    crop = build_part("augmentation", node)
    data = CamVid(str(root), "train", image_size=[56, 64], augmentation=crop)
    assert data.samples[0][1].shape == (120, 160)  # cropped from the native size
    agreements = []
    for epoch in range(20):
        image, cropped = data[(epoch, 0)]
        assert cropped.shape == (56, 64)
        agreements.append(((image[..., 0] >= 128) == (cropped == 3)).mean())
    return float(np.mean(agreements))


def test_a_crop_keeps_image_and_mask_aligned(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 2, (12, 16), np.uint8)
    mask = np.kron(coarse, np.full((10, 10), 3, np.uint8))
    for folder, content in (("train", np.dstack([mask // 3 * 255] * 3)), ("trainannot", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(content).save(tmp_path / folder / "x.png")
    assert crop_agreement(tmp_path) > 0.99
    assert crop_agreement(tmp_path, mask_interpolation=cv2.INTER_NEAREST) > 0.99  # albumentations' default, replaced


def test_a_crop_without_image_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augmentation.*size"):
        build(ROOT / "conf" / "augmentation" / "crop.yaml", None)


def load_batches(data: CamVid, num_workers: int) -> list[tuple[Tensor, Tensor]]:
    """Two epochs, with workers that live on from one to the next."""
    sampler = EpochSampler(len(data), 5, shuffle=True)
    batches = BatchSampler(sampler, 2, drop_last=False)
    loader = DataLoader(
        Batches(data), batch_size=None, sampler=batches, num_workers=num_workers, persistent_workers=num_workers > 0
    )
    batches = []
    for epoch in range(2):
        sampler.begin(epoch)
        batches += [(images.clone(), masks.clone()) for images, masks in loader]
    return batches


def test_workers_change_nothing(tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for number in range(5):
        image, mask = sample()
        Image.fromarray(image + np.uint8(number)).save(tmp_path / "train" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "trainannot" / f"{number}.png")
    data = CamVid(str(tmp_path), "train", augmentation=Augmentation(EVERYTHING), seed=5)
    expected = load_batches(data, 0)
    assert len(expected) == 6
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(expected[:3], expected[3:], strict=True))
    for num_workers in (1, 2):
        actual = load_batches(data, num_workers)
        assert len(actual) == len(expected)
        for (images, masks), (expected_images, expected_masks) in zip(actual, expected, strict=True):
            assert torch.equal(images, expected_images)
            assert torch.equal(masks, expected_masks)


def order(sampler: EpochSampler, epoch: int, skip: int = 0) -> list[tuple[int, int]]:
    sampler.begin(epoch, skip)
    keys = list(sampler)
    assert len(keys) == len(sampler)
    return keys


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    sampler = EpochSampler(20, 3, shuffle=True)
    orders = [[index for _, index in order(sampler, epoch)] for epoch in range(6)]
    assert all(sorted(indices) == list(range(20)) for indices in orders)
    assert len({tuple(indices) for indices in orders}) == 6
    assert [epoch for epoch, _ in order(sampler, 4)] == [4] * 20


def test_seed_and_epoch_determine_the_order() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = order(EpochSampler(20, 3, shuffle=True), 2)
    np.random.seed(2)
    torch.manual_seed(2)
    other = EpochSampler(20, 3, shuffle=True)
    order(other, 0)
    assert order(other, 2) == first
    assert order(EpochSampler(20, 4, shuffle=True), 2) != first


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("skip", [0, 1, 7, 20])
def test_skipping_goes_on_where_it_was_left(shuffle: bool, skip: int) -> None:
    sampler = EpochSampler(20, 3, shuffle)
    whole = order(sampler, 2)
    assert order(sampler, 2, skip) == whole[skip:]
    assert order(sampler, 3) == order(EpochSampler(20, 3, shuffle), 3)  # the next epoch is whole again


def test_without_shuffling_the_files_come_in_order() -> None:
    assert order(EpochSampler(4, 3, shuffle=False), 7) == [(7, 0), (7, 1), (7, 2), (7, 3)]


@pytest.mark.parametrize("size", [(224, 224), (61, 77), (500, 700)], ids=str)
def test_floor_is_what_the_original_scripts_resize_does(size: tuple[int, int]) -> None:
    """Bit for bit albumentations' Resize at its defaults, and coordinates rounded down by hand."""
    image, mask = sample(360, 480)
    resized = A.Compose([A.Resize(*size)])(image=image, mask=mask)
    ours = resize(image, mask, size, "floor")
    np.testing.assert_array_equal(ours[0], resized["image"])
    np.testing.assert_array_equal(ours[1], resized["mask"])
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    np.testing.assert_array_equal(ours[1], mask[np.ix_(rows, columns)])


@pytest.mark.parametrize("size", [(224, 224), (61, 77), (500, 700)], ids=str)
def test_center_takes_the_pixel_under_the_new_ones_center(size: tuple[int, int]) -> None:
    image, mask = sample(360, 480)
    ours = resize(image, mask, size)
    places, nearest = [], []
    for new, old in zip(size, mask.shape, strict=True):
        pixel, rest = np.divmod((2 * np.arange(new) + 1) * old, 2 * new)
        places.append(np.flatnonzero(rest))  # a center on the border of two pixels is as near to either
        nearest.append(pixel[rest > 0])
    assert min(map(len, places)) > 50
    np.testing.assert_array_equal(ours[1][np.ix_(*places)], mask[np.ix_(*nearest)])
    np.testing.assert_array_equal(ours[0], resize(image, mask, size, "floor")[0])
