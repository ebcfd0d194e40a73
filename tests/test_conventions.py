"""The doctor tells CamVid's conventions apart: the order of the ids, and what is void."""

import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.datasets.camvid import CamVid
from src.datasets.label_sets import UNMERGED, camvid_labels
from src.datasets.street_scenes.scene import render_scene
from src.diagnosis.class_order import HEIGHTS, NAMES, SHARES, find_likely_order, measure_profile
from src.diagnosis.conventions import measure_void_in_road
from src.diagnosis.report import diagnose, render_page

LABELS = camvid_labels("camvid11")
ALPHABETICAL = ["Bicyclist", "Building", "Car", "Fence", "Pavement", "Pedestrian", "Pole", "Road", "SignSymbol", "Sky", "Tree"]
FREQUENT = ("Sky", "Building", "Road", "Pavement", "Tree", "Car")
SPLITS = ("train", "val", "test")
Masks = list[np.ndarray]


def stored_in(order: list[str], masks: Masks) -> Masks:
    """The masks with the ids that the classes have where they are counted in this order; void stays 11."""
    table = np.arange(256, dtype=np.uint8)
    table[: len(NAMES)] = [order.index(name) for name in NAMES]
    return [table[mask] for mask in masks]


def exchanged(one: str, other: str) -> list[str]:
    return [{one: other, other: one}.get(name, name) for name in NAMES]


def scenes(number: int, size: tuple[int, int] = (120, 160)) -> list[tuple[np.ndarray, np.ndarray]]:
    return [render_scene(0, scene, *size) for scene in range(number)]


@pytest.fixture(scope="module")
def real() -> dict[str, Masks]:
    """SegNet's masks by split, at a third of their size: nearest neighbour, so that no id is invented."""
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("CAMVID_ROOT is not set: no CamVid whose ids could be exchanged")
    root = Path(os.environ["CAMVID_ROOT"])
    files = {split: sorted((root / f"{split}annot").glob("*.png")) for split in SPLITS}
    return {split: [np.array(Image.open(file))[1::3, 1::3] for file in found] for split, found in files.items()}


def test_a_profile_by_hand() -> None:
    mask = np.array([[0, 0, 11], [0, 3, 11], [3, 3, 11], [3, 3, 11]], np.uint8)
    shares, heights = measure_profile([mask, np.kron(mask, np.ones((2, 2), np.uint8))], (0, 3, 8))
    assert shares == pytest.approx([3 / 8 * 100, 5 / 8 * 100, 0])
    assert heights[:2] == pytest.approx([(12.5 + 12.5 + 37.5) / 3, (37.5 + 62.5 * 2 + 87.5 * 2) / 5])
    assert np.isnan(heights[2])


def test_the_known_profiles_are_those_of_the_data(real: dict[str, Masks]) -> None:
    for row, masks in enumerate([*real.values(), list(itertools.chain(*real.values()))]):
        shares, heights = measure_profile(masks, range(11))
        np.testing.assert_allclose(shares, SHARES[row], rtol=0.03, atol=0.01)  # of a third of the size
        np.testing.assert_allclose(heights, HEIGHTS[row], atol=0.3)


@pytest.mark.parametrize("split", SPLITS)
def test_real_ids_in_another_order(real: dict[str, Masks], split: str) -> None:
    assert find_likely_order(real[split], LABELS) is None
    assert find_likely_order(stored_in(ALPHABETICAL, real[split]), LABELS) == ALPHABETICAL
    for one, other in itertools.combinations(FREQUENT, 2):
        assert find_likely_order(stored_in(exchanged(one, other), real[split]), LABELS) == exchanged(one, other)


def test_real_ids_under_names_of_their_own_order(real: dict[str, Masks]) -> None:
    named = camvid_labels("index", num_classes=11, class_names=ALPHABETICAL, ignore_index=11)
    assert find_likely_order(stored_in(ALPHABETICAL, real["val"]), named) is None
    assert find_likely_order(real["val"], named) == NAMES


@pytest.mark.parametrize("split", SPLITS)
def test_some_frames_and_other_sizes_are_no_other_order(real: dict[str, Masks], split: str) -> None:
    masks = real[split]
    generator = np.random.default_rng(0)
    groups = [masks[first : first + 20] for first in range(0, len(masks) - 19, 20)]
    groups += [[masks[i] for i in generator.choice(len(masks), 40, replace=False)]]
    groups += [[cv2.resize(mask, (41, 33), interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]]
    for group in groups:
        assert find_likely_order(group, LABELS) is None
        assert find_likely_order(stored_in(ALPHABETICAL, group), LABELS) == ALPHABETICAL


def test_rendered_and_made_masks_are_no_other_order() -> None:
    assert find_likely_order([mask for _, mask in scenes(40)], LABELS) is None
    generator = np.random.default_rng(0)
    made = [
        np.full((24, 32), 3, np.uint8),
        np.repeat(np.arange(11, dtype=np.uint8), 4)[:, None].repeat(32, axis=1),
        generator.integers(0, 12, (24, 32)).astype(np.uint8),
    ]
    for mask in made:
        assert find_likely_order([mask, mask[::-1]], LABELS) is None
        assert find_likely_order([mask], LABELS) is None
    assert find_likely_order([], LABELS) is None


def write(root: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    """In SegNet's layout, under names of CamVid's frames."""
    for split, first in (("train", 0), ("val", len(pairs) // 2)):
        names = [f"0016E5_{7959 + 2 * number:05d}.png" for number in range(first, first + len(pairs) // 2)]
        for folder, place in ((split, 0), (f"{split}annot", 1)):
            (root / folder).mkdir(parents=True)
            for name, pair in zip(names, pairs[first:], strict=False):
                Image.fromarray(pair[place]).save(root / folder / name)
    return root


def test_the_doctor_names_the_order_and_what_to_set(real: dict[str, Masks], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    masks = stored_in(ALPHABETICAL, real["val"][::2])
    root = write(tmp_path, [(generator.integers(0, 256, (*mask.shape, 3)).astype(np.uint8), mask) for mask in masks])
    report, _ = diagnose(CamVid.source(str(root)), None)
    (line,) = [warning for warning in report["warnings"] if "class names" in warning]
    assert line.startswith("train, val: by their shares of the pixels and their places in the image, class names cannot be right")
    assert "id 9 is called Pedestrian and looks like Sky" in line
    assert "(alphabetical order)" in line
    assert f"'dataset.class_names=[{','.join(ALPHABETICAL)}]'" in line
    assert report["errors"] == []
    assert report["void_convention"] is None
    source = CamVid.source(str(root), labels="index", num_classes=11, ignore_index=11, class_names=ALPHABETICAL)
    again, _ = diagnose(source, None)
    assert not [warning for warning in again["warnings"] if "class names" in warning]
    assert again["void_convention"] == "merged"


def test_void_in_the_road_by_hand() -> None:
    rows = [
        [0, 11, 11, 0, 0, 0, 0, 0],  # void below the sky
        [3, 3, 11, 11, 3, 3, 11, 8],  # two of six within the road; the last void ends at a car
        [11, 3, 3, 3, 3, 3, 3, 11],  # the image ends here, not the road
        [3, 11, 11, 11, 11, 11, 11, 3],
    ]
    mask = np.array(rows, np.uint8)
    expected = (2 + 6) / (2 + 6 + 4 + 6 + 2)
    assert measure_void_in_road([mask], LABELS) == pytest.approx(expected)
    no_void = np.where(mask == 11, 3, mask).astype(np.uint8)
    assert measure_void_in_road([mask, no_void, no_void], LABELS) == 0.0
    assert measure_void_in_road([np.zeros((4, 4), np.uint8)], LABELS) is None


def with_lane_marks_void(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What is painted on the road, far brighter than the rest of it, made void: as in copies that leave lane marks unmerged."""
    grey, is_road = image.mean(axis=2), mask == 3
    return np.where(is_road & (grey > np.median(grey[is_road]) + 40), 11, mask).astype(np.uint8) if is_road.any() else mask


def test_two_copies_that_differ_in_what_is_void(tmp_path: Path) -> None:
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("CAMVID_ROOT is not set: no CamVid whose lane marks could be made void")
    root = Path(os.environ["CAMVID_ROOT"])
    masks = [np.array(Image.open(file)) for file in sorted((root / "valannot").glob("*.png"))[::5]]
    images = [np.array(Image.open(file)) for file in sorted((root / "val").iterdir())[::5]]
    pairs = [(image[::2, ::2], mask[::2, ::2]) for image, mask in zip(images, masks, strict=True)]
    merged, _ = diagnose(CamVid.source(str(write(tmp_path / "merged", pairs))), None)
    unmerged_pairs = [(image, with_lane_marks_void(image, mask)) for image, mask in pairs]
    unmerged, _ = diagnose(CamVid.source(str(write(tmp_path / "unmerged", unmerged_pairs))), None)
    assert (merged["void_convention"], unmerged["void_convention"]) == ("merged", "unmerged")
    assert not [warning for warning in merged["warnings"] if "void covers" in warning]
    (line,) = [warning for warning in unmerged["warnings"] if "void covers" in warning]
    assert UNMERGED in line
    pages = [render_page({**report, "figure": None}) for report in (merged, unmerged)]
    assert ["lane marks are no void but Road" in page for page in pages] == [True, False]


def test_nothing_is_said_of_data_that_are_no_copy_of_camvid(tmp_path: Path) -> None:
    root = write(tmp_path, scenes(6))
    for file in root.glob("*/*.png"):
        file.rename(file.with_name(f"street_{file.parent.name.removesuffix('annot')}{file.stem[-3:]}.png"))
    report, _ = diagnose(CamVid.source(str(root)), None)
    assert (report["void_in_road"], report["void_convention"], report["likely_order"]) == (None, None, {})
