"""The doctor on real pixels where they are at hand, and on every kind of damage."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ROOT, write_split
from PIL import Image

from src.datasets.camvid import CamVid
from src.datasets.label_sets import camvid_labels
from src.diagnosis import costs
from src.diagnosis.report import diagnose

# reference 2.2: percent of the pixels, in the order of the ids, void last.
SHARES = {
    "train": [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95],
    "val": [9.18, 25.96, 0.56, 28.95, 8.72, 16.34, 0.89, 3.08, 1.75, 0.65, 2.22, 1.70],
    "test": [17.07, 24.61, 1.18, 25.81, 9.27, 11.25, 1.01, 1.18, 3.97, 0.63, 0.19, 3.83],
}
IMAGES_WITH = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201]  # of train
WEIGHTS = [0.2793, 0.2017, 4.7865, 0.1490, 1.0000, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]
LABELS = camvid_labels("camvid11")


def doctor(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src.doctor", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, number in (("train", 5), ("val", 3), ("test", 2)):
        write_split(tmp_path / "data", split, number, (24, 32))
        for folder in (split, f"{split}annot"):  # other names in each split, so that no frames are neighbours
            for file in (tmp_path / "data" / folder).iterdir():
                file.rename(file.with_name(f"{split}-{file.stem.removeprefix('frame_')}x.png"))
    return tmp_path / "data"


def examine(root: Path, size: tuple[int, int] | None = None) -> dict[str, Any]:
    return diagnose(CamVid.source(str(root)), size)[0]


# --- the real CamVid --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("CAMVID_ROOT is not set: no CamVid to examine")
    work = tmp_path_factory.mktemp("doctor")
    done = doctor(work, "dataset=camvid", f"dataset.root={os.environ['CAMVID_ROOT']}", "format=json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), work


Real = tuple[dict[str, Any], Path]


def test_the_counts_and_shares_of_the_reference(real: Real) -> None:
    splits = real[0]["splits"]
    assert {name: split["images"] for name, split in splits.items()} == {"train": 367, "val": 101, "test": 233}
    for name, expected in SHARES.items():
        shares = [*splits[name]["class_shares"].values(), splits[name]["void_share"]]
        np.testing.assert_allclose(np.array(shares) * 100, expected, rtol=0, atol=0.01)
    assert list(splits["train"]["class_images"].values()) == IMAGES_WITH
    np.testing.assert_allclose(list(real[0]["median_frequency_weights"].values()), WEIGHTS, rtol=0, atol=1e-4)


def test_the_scores_without_a_network_of_the_reference(real: Real) -> None:
    majority = real[0]["baselines"]["test"]["majority_per_pixel"]
    assert majority["miou"] * 100 == pytest.approx(17.0, abs=0.1)
    assert majority["pixel_accuracy"] * 100 == pytest.approx(61.5, abs=0.1)


def test_the_neighbours_of_the_reference(real: Real) -> None:
    found = {(tuple(pair["splits"]), pair["sequence"]): pair["frames_apart"] for pair in real[0]["sequences"]}
    assert found == {(("train", "val"), "0016E5"): 31, (("train", "test"), "0001TP"): 30}
    assert len(real[0]["warnings"]) == 2
    assert real[0]["errors"] == []


def test_a_perfect_prediction_survives_the_training_size(real: Real) -> None:
    assert real[0]["resize"]["miou_of_perfect_prediction"]["val"] * 100 == pytest.approx(93.3, abs=0.1)
    assert real[0]["resize"]["miou_of_perfect_prediction"]["val"] >= 0.930


@pytest.mark.parametrize(
    ("interpolation", "void_is_wrong", "expected"),
    [
        (cv2.INTER_NEAREST_EXACT, False, 93.3),
        (cv2.INTER_NEAREST, False, 85.1),
        (cv2.INTER_NEAREST_EXACT, True, 92.9),
        (cv2.INTER_NEAREST, True, 84.5),
    ],
)
def test_masks_stay_aligned_only_when_sampled_at_pixel_centres(
    real: Real, interpolation: int, void_is_wrong: bool, expected: float
) -> None:
    """Counted by hand over val, in all four ways: 224x224 and back."""
    hits, union = np.zeros(11), np.zeros(11)
    for file in sorted(Path(os.environ["CAMVID_ROOT"], "valannot").glob("*.png")):
        truth = np.array(Image.open(file))
        back = cv2.resize(cv2.resize(truth, (224, 224), interpolation=interpolation), (480, 360), interpolation=interpolation)
        counted = (truth != 11) & (void_is_wrong | (back != 11))
        for class_id in range(11):
            there, answered = (truth == class_id) & counted, (back == class_id) & counted
            hits[class_id] += (there & answered).sum()
            union[class_id] += (there | answered).sum()
    assert (hits / union).mean() * 100 == pytest.approx(expected, abs=0.1)


def test_the_vertical_flip_destroys_what_the_row_tells(real: Real) -> None:
    flips = real[0]["flips"]
    assert flips["row_bits"] == pytest.approx(1.02, abs=0.01)
    assert flips["row_bits_after_vertical"] == pytest.approx(0.25, abs=0.01)


def test_the_figure_is_there(real: Real) -> None:
    with Image.open(real[1] / real[0]["figure"]) as figure:
        assert figure.size[0] > 1000


# --- every kind of damage ---------------------------------------------------------------------------------------------


def lose_a_mask(root: Path) -> list[str]:
    (root / "trainannot" / "train-001x.png").unlink()
    return ["train-001x.png: no mask of the same name"]


def lose_an_image(root: Path) -> list[str]:
    (root / "val" / "val-001x.png").unlink()
    return ["val-001x.png: no image of the same name"]


def lose_both(root: Path) -> list[str]:
    return [*lose_a_mask(root), *lose_an_image(root)]


def truncate_two(root: Path) -> list[str]:
    for name in ("train/train-000x.png", "valannot/val-000x.png"):
        (root / name).write_bytes((root / name).read_bytes()[:-30])
    return ["train-000x.png: cannot be read", "val-000x.png: cannot be read"]


def empty_a_file(root: Path) -> list[str]:
    (root / "test" / "test-000x.png").write_bytes(b"")
    return ["test-000x.png: the file is empty"]


def other_sizes(root: Path) -> list[str]:
    for name in ("train-000x.png", "train-003x.png"):
        Image.new("L", (30, 24)).save(root / "trainannot" / name)
    return ["train-000x.png 24x30 (height x width); both", "train-003x.png 24x30 (height x width); both"]


def unknown_value(root: Path) -> list[str]:
    Image.new("L", (32, 24), 77).save(root / "valannot" / "val-002x.png")
    return ["val-002x.png: value 77 (768 pixels) is no class"]


def unknown_colour(root: Path) -> list[str]:
    Image.new("RGB", (32, 24), (1, 2, 3)).save(root / "valannot" / "val-002x.png")
    return ["val-002x.png: 768 pixels (100.0%) have a colour of no class"]


def share_an_image(root: Path) -> list[str]:
    content = (root / "train" / "train-002x.png").read_bytes()
    (root / "test" / "test-001x.png").write_bytes(content)
    return ["test-001x.png of test is the same picture as", "train-002x.png of train"]


def turn_an_image(root: Path) -> list[str]:
    with Image.open(root / "train" / "train-004x.png") as image:
        tags = Image.Exif()
        tags[0x0112] = 3
        image.copy().save(root / "train" / "train-004x.png", exif=tags)
    return ["train-004x.png has EXIF orientation 3"]


DAMAGES = [
    *(lose_a_mask, lose_an_image, lose_both, truncate_two, empty_a_file, other_sizes, unknown_value, unknown_colour),
    *(share_an_image, turn_an_image),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named_and_all_of_it(root: Path, damage: Callable[[Path], list[str]]) -> None:
    assert examine(root)["errors"] == []
    words = damage(root)
    errors = "\n".join(examine(root)["errors"])
    assert [word for word in words if word not in errors] == [], errors


def test_exit_codes(root: Path, tmp_path: Path) -> None:
    absent = "no pixel of Building, Pole, Pavement, Tree, SignSymbol, Fence, Pedestrian, Bicyclist"
    well = doctor(tmp_path, f"dataset.root={root}")
    assert well.returncode == 0, well.stderr
    assert f"train: {absent}" in well.stdout
    assert doctor(tmp_path, f"dataset.root={root}", "strict=true").returncode == 1
    unknown_value(root)
    ill = doctor(tmp_path, f"dataset.root={root}", "format=json")
    assert ill.returncode == 2
    report = json.loads(ill.stdout)
    assert report["exit_code"] == 2
    assert len(report["errors"]) == 1


def test_training_refuses_a_picture_that_is_in_two_splits(root: Path, tmp_path: Path) -> None:
    (root / "val" / "val-000x.png").write_bytes((root / "train" / "train-000x.png").read_bytes())
    command = [sys.executable, "-m", "src.train", f"dataset.root={root}", "device=cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "is the same picture as" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["format=xml"], ["format=xml", "text, json"]),
        (["strct=true"], ["strct", "did you mean strict"]),
        (["-m", "strict=true,false"], ["-m", "only training is swept"]),
        (["dataset.num_clases=3"], ["did you mean dataset.num_classes"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_is_asked_wrongly(tmp_path: Path, words: list[str], parts: list[str]) -> None:
    done = doctor(tmp_path, *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert [part for part in parts if part not in line] == [], line
    assert list(tmp_path.iterdir()) == []


def test_no_data_at_all(tmp_path: Path) -> None:
    done = doctor(tmp_path, "dataset.root=nowhere")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "nowhere: no CamVid here" in line
    assert list(tmp_path.iterdir()) == []


# --- what scores mean, by hand ----------------------------------------------------------------------------------------


def test_one_class_everywhere() -> None:
    pixels = np.zeros(256, np.int64)
    pixels[[0, 3, 8, 11]] = [20, 60, 20, 900]  # void does not count
    name, baseline = costs.one_class(pixels, LABELS)
    assert name == "Road"
    assert baseline == (pytest.approx(0.6 / 3), pytest.approx(0.6))


def test_the_majority_of_each_pixel() -> None:
    train = [np.array(rows, np.uint8) for rows in ([[0, 3], [8, 11]], [[0, 3], [3, 11]], [[3, 3], [8, 11]])]
    truth = [np.array([[0, 3], [3, 11]], np.uint8)]  # answered by 0 3 8 (and anything for the void)
    baseline = costs.majority_per_pixel(train, truth, LABELS)
    assert baseline.pixel_accuracy == pytest.approx(2 / 3)
    assert baseline.miou == pytest.approx((1 / 1 + 1 / 2) / 2)  # Sky whole, half of Road


def test_what_a_place_tells() -> None:
    """Two classes that the row decides: one bit; flipped, the halves mix and it tells nothing."""
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 3
    cost = costs.cost_of_flips([mask], LABELS, size=(8, 8))
    assert cost.row_bits == pytest.approx(1.0)
    assert cost.row_bits_after_vertical == pytest.approx(0.0, abs=1e-12)
    assert cost.column_bits == pytest.approx(0.0, abs=1e-12)


def test_a_size_that_loses_nothing_and_one_that_does() -> None:
    mask = np.kron(np.array([[0, 3], [8, 0]], np.uint8), np.ones((4, 4), np.uint8))
    assert costs.cost_of_size([mask], (4, 4), LABELS).miou == 1.0
    stripes = np.tile(np.array([0, 3], np.uint8), (8, 4))
    assert costs.cost_of_size([stripes], (4, 4), LABELS).miou < 0.6
