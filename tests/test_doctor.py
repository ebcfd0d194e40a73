"""The doctor on real pixels where they are at hand, and on every kind of damage."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ROOT, write_split
from PIL import Image

from src.build import build_splits
from src.config import DoctorConfig
from src.datasets.camvid import CamVid
from src.datasets.folder import Folder
from src.datasets.label_sets import camvid_labels
from src.diagnosis import costs
from src.diagnosis.report import diagnose, render_page
from src.doctor import examine as doctor_examine
from src.errors import ConfigError, UserError
from src.losses import CrossEntropy

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


def dataset_node(root: Path) -> dict[str, Any]:
    return {"_target_": "src.datasets.camvid.CamVid", "root": str(root), "image_size": None}


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


@pytest.mark.slow
def test_the_counts_and_shares_of_the_reference(real: Real) -> None:
    splits = real[0]["splits"]
    assert {name: split["images"] for name, split in splits.items()} == {"train": 367, "val": 101, "test": 233}
    for name, expected in SHARES.items():
        shares = [*splits[name]["class_shares"].values(), splits[name]["void_share"]]
        np.testing.assert_allclose(np.array(shares) * 100, expected, rtol=0, atol=0.01)
    assert list(splits["train"]["class_images"].values()) == IMAGES_WITH
    np.testing.assert_allclose(list(real[0]["median_frequency_weights"].values()), WEIGHTS, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_scores_without_a_network_of_the_reference(real: Real) -> None:
    majority = real[0]["baselines"]["test"]["majority_per_pixel"]
    assert majority["miou"] * 100 == pytest.approx(17.0, abs=0.1)
    assert majority["pixel_accuracy"] * 100 == pytest.approx(61.5, abs=0.1)


@pytest.mark.slow
def test_the_neighbours_of_the_reference(real: Real) -> None:
    found = {(tuple(pair["splits"]), pair["sequence"]): pair["frames_apart"] for pair in real[0]["sequences"]}
    assert found == {(("train", "val"), "0016E5"): 31, (("train", "test"), "0001TP"): 30}
    assert len(real[0]["warnings"]) == 2
    assert real[0]["errors"] == []


@pytest.mark.slow
def test_a_perfect_prediction_survives_the_training_size(real: Real) -> None:
    assert real[0]["resize"]["miou_of_perfect_prediction"]["val"] * 100 == pytest.approx(93.3, abs=0.1)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_vertical_flip_destroys_what_the_row_tells(real: Real) -> None:
    flips = real[0]["flips"]
    assert flips["row_bits"] == pytest.approx(1.02, abs=0.01)
    assert flips["row_bits_after_vertical"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.slow
def test_the_figure_is_there(real: Real) -> None:
    with Image.open(real[1] / real[0]["figure"]) as figure:
        assert figure.size[0] > 1000


@pytest.mark.parametrize(("rule", "interpolation"), [("center", cv2.INTER_NEAREST_EXACT), ("floor", cv2.INTER_NEAREST)])
def test_what_a_size_costs_depends_on_how_masks_are_resized(root: Path, tmp_path: Path, rule: str, interpolation: int) -> None:
    """Counted by hand on val: down by this rule, back up at pixel centres."""
    done = doctor(tmp_path, f"dataset.root='{root}'", "dataset.image_size=[10,14]", f"dataset.mask_resize={rule}", "format=json")
    hits, union = np.zeros(11), np.zeros(11)
    for file in sorted((root / "valannot").iterdir()):
        truth = np.array(Image.open(file))
        down = cv2.resize(truth, (14, 10), interpolation=interpolation)
        back = cv2.resize(down, (32, 24), interpolation=cv2.INTER_NEAREST_EXACT)
        counted = (truth != 11) & (back != 11)
        for class_id in (0, 3, 8):
            there, answered = (truth == class_id) & counted, (back == class_id) & counted
            hits[class_id] += (there & answered).sum()
            union[class_id] += (there | answered).sum()
    expected = (hits[[0, 3, 8]] / union[[0, 3, 8]]).mean()
    assert json.loads(done.stdout)["resize"]["miou_of_perfect_prediction"]["val"] == pytest.approx(expected, abs=1e-12)


# --- every kind of damage ---------------------------------------------------------------------------------------------


def lose_a_mask(root: Path) -> list[str]:
    (root / "trainannot" / "train-001x.png").unlink()
    return ["train-001x.png: no mask of the same name"]


def lose_an_image(root: Path) -> list[str]:
    (root / "val" / "val-001x.png").unlink()
    return ["val-001x.png: no image of the same name"]


def lose_many(root: Path) -> list[str]:
    for file in (root / "trainannot").iterdir():
        file.rename(file.with_name(f"x{file.name}"))
    return [f"train-{number:03d}x.png: no" for number in range(5)] + [f"xtrain-{number:03d}x.png: no" for number in range(5)]


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
    return ["train-000x.png 24x30; both", "train-003x.png 24x30; both"]


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


def strange_orientation(root: Path) -> list[str]:
    content = (root / "train" / "train-001x.png").read_bytes()
    data = b"eXIfMM\0*"
    chunk = len(data[4:]).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    (root / "train" / "train-001x.png").write_bytes(content[:33] + chunk + content[33:])
    return ["train-001x.png: cannot be read"]


def lose_val(root: Path) -> list[str]:
    for folder in ("val", "valannot"):
        shutil.rmtree(root / folder)
    return ["no val split here; training needs it"]


def lose_a_folder(root: Path) -> list[str]:
    shutil.rmtree(root / "valannot")
    return ["valannot: no such folder"]


def all_void(root: Path) -> list[str]:
    for file in (root / "valannot").iterdir():
        Image.new("L", (32, 24), 11).save(file)
    return ["no mask of val has a pixel that counts"]


def list_otherwise(root: Path) -> list[str]:
    (root / "val.txt").write_text("val/nobody.png\nval/nobody else.png\nval/val-000x.png\nval/val-001x.png\n")
    return ["lists nobody, which", "lists nobody else, which", "does not list val-002x"]


def of_several_sizes(root: Path) -> list[str]:
    for folder in ("train", "trainannot"):
        with Image.open(root / folder / "train-001x.png") as image:
            image.crop((0, 0, 20, 24)).save(root / folder / "train-001x.png")
    return ["train: images of several sizes: 24x32 (4), 24x20 (1); set dataset.image_size"]


DAMAGES = [
    *(lose_a_mask, lose_an_image, lose_both, lose_many, truncate_two, empty_a_file, other_sizes, unknown_value),
    *(unknown_colour, share_an_image, turn_an_image, strange_orientation, lose_val, lose_a_folder, all_void),
    *(list_otherwise, of_several_sizes),
]

OF_TEST = (empty_a_file, share_an_image)  # training never looks at test


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named_and_all_of_it(root: Path, damage: Callable[[Path], list[str]], capsys: Any) -> None:
    config = DoctorConfig(strict=False, format="json", dataset=dataset_node(root))
    assert examine(root)["errors"] == []
    words = damage(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # where the figure goes
        assert doctor_examine(config) == 2
    report = json.loads(capsys.readouterr().out)
    errors = report["errors"]
    assert len(errors) == len(set(errors))
    assert [word for word in words if not any(word in error for error in errors)] == [], errors
    if damage not in OF_TEST:
        with pytest.raises(UserError):
            build_splits(dataset_node(root), {"_target_": "src.datasets.augmentation.Augmentation", "transforms": []}, seed=0)


def test_a_folder_in_a_list_layout(tmp_path: Path) -> None:
    write_split(tmp_path / "there", "train", 3, (24, 32))
    root = tmp_path / "lists"
    root.mkdir()
    (tmp_path / "there" / "train").rename(root / "images")
    (tmp_path / "there" / "trainannot").rename(root / "labels")
    (root / "labels" / "x.png").mkdir()
    for split, number in (("train", 0), ("val", 1)):
        (root / f"{split}.txt").write_text(f"images/frame_{number:03d}.png\n")
    assert any(error.endswith("x.png: is no file; remove or rename it") for error in examine(root)["errors"])
    (root / "annot").mkdir()
    assert any("masks could be in either" in error for error in examine(root)["errors"])


def test_errors_of_a_whole_folder_are_told_once(tmp_path: Path) -> None:
    for folder, suffix in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
        (tmp_path / folder).mkdir()
        for name in ("0001TP_006690", "0016E5_07959", "0001TP_008550", "0000XX_000000"):
            Image.new("RGB", (32, 24), (128, 64, 128)).save(tmp_path / folder / f"{name}{suffix}.png")
    (tmp_path / "LabeledApproved_full" / "0016E5_07959_L.png").unlink()
    errors = examine(tmp_path)["errors"]
    assert sum("no mask of the same name" in error for error in errors) == 1
    assert sum("no frame of CamVid" in error for error in errors) == 1


# --- what is to be known ----------------------------------------------------------------------------------------------


def test_frames_of_one_sequence_in_two_splits(tmp_path: Path) -> None:
    names = {"train": ["0001TP_006690", "Seq05VD_f00030"], "val": ["0001TP_006720", "Seq05VD_f00930"], "test": ["other"]}
    for number, (split, listed) in enumerate(names.items()):
        write_split(tmp_path, split, len(listed), (24, 32), seed=number)
        for folder in (split, f"{split}annot"):
            for index, name in enumerate(listed):
                (tmp_path / folder / f"frame_{index:03d}.png").rename(tmp_path / folder / f"{name}.png")
    report = examine(tmp_path)
    assert [(s["sequence"], s["splits"], s["frames_apart"]) for s in report["sequences"]] == [
        ("0001TP", ["train", "val"], 30),
        ("Seq05VD", ["train", "val"], 900),
    ]
    warnings = [warning for warning in report["warnings"] if "sequence" in warning]
    assert warnings == [
        "train and val share the sequence 0001TP: frames 6690 and 6720 are 30 apart; scores on val are optimistic"
    ]


def test_pictures_that_each_split_numbers_from_the_start_are_no_neighbours(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val")):
        write_split(tmp_path, split, 3, (24, 32), seed=number)
    assert examine(tmp_path)["sequences"] == []


def test_warnings(root: Path) -> None:
    Image.fromarray(np.full((24, 32, 4), 200, np.uint8)).save(root / "train" / "train-000x.png")
    Image.new("L", (32, 24), 11).save(root / "trainannot" / "train-001x.png")
    with Image.open(root / "train" / "train-002x.png") as image, Image.open(root / "trainannot" / "train-002x.png") as mask:
        image.resize((64, 48)).save(root / "train" / "train-002x.png")
        mask.resize((64, 48), Image.Resampling.NEAREST).save(root / "trainannot" / "train-002x.png")
    colors = np.zeros((48, 64, 3), np.uint8)
    colors[:] = (128, 64, 128)  # Road
    colors[0, :3] = (1, 2, 3)
    Image.fromarray(colors).save(root / "trainannot" / "train-002x.png")
    report = examine(root, (24, 32))
    assert report["errors"] == []
    expected = [
        "train: 768 transparent pixels, shown opaque, in",
        "train: colours of no class, taken as void: (1, 2, 3) on 3 pixels; in",
        "train: all void, so that nothing is learnt from them:",
        "train: images of several sizes: 24x32 (4), 48x64 (1)",
    ]
    assert [part for part in expected if not any(warning.startswith(part) for warning in report["warnings"])] == []


def test_classes_beyond_those_that_are_named(root: Path) -> None:
    """With dataset.labels=index the loss weighs every id that is learnt; the page shows the named ones of these weights."""
    source = CamVid.source(str(root), labels="index", num_classes=33)
    report, _ = diagnose(source, None)
    data = CamVid(str(root), "train", labels="index", num_classes=33)
    loss = CrossEntropy(data.ignore_index, data.class_pixels, data.class_image_pixels, 33, "median_frequency")
    assert loss.weight is not None
    np.testing.assert_allclose(list(report["median_frequency_weights"].values()), loss.weight[:11], rtol=1e-6)
    train = report["splits"]["train"]
    assert train["other_share"] == pytest.approx(2 / 24)  # id 11 in the last two of 24 rows
    assert sum(train["class_shares"].values()) + train["other_share"] + train["void_share"] == pytest.approx(1)


def test_the_order_in_which_splits_are_written_does_not_matter(root: Path) -> None:
    folders = {split: [split, f"{split}annot"] for split in ("val", "test", "train")}
    source = Folder.source(str(root), folders, {"sky": 0, "road": 3, "car": 8}, void=11)
    assert diagnose(source, None)[0].keys() == examine(root).keys()
    assert list(diagnose(source, None)[0]["baselines"]) == ["val", "test"]
    with pytest.raises(ConfigError, match=r"dataset\.folders\.training: no such split; allowed are train, val, test"):
        Folder.source(str(root), {"training": ["train", "trainannot"]}, {"a": 0, "b": 1})


def test_the_page(root: Path) -> None:
    report = examine(root, (12, 16))
    report["figure"] = "somewhere.png"
    lines = render_page(report).splitlines()
    assert lines[0] == "layout: segnet"
    assert lines[1] == "train: 5 pairs; images 24x32 in RGB, masks 24x32 in L"
    (sky,) = (line.split() for line in lines if line.startswith("Sky "))
    weight = report["median_frequency_weights"]["Sky"]
    assert sky == ["Sky", "50.00", "5", "50.00", "3", "50.00", "2", f"{weight:.4f}"]
    (void,) = (line.split() for line in lines if line.startswith("void"))
    assert void == ["void", "8.33", "8.33", "8.33"]
    text = "\n".join(lines)
    for part in ("Sky everywhere", "majority of each pixel", "a perfect prediction at 12x16 scores", "flipped vertically"):
        assert part in text
    assert lines[-1] == "figure: somewhere.png"


@pytest.mark.slow
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
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "outputs").touch()
    placeless = doctor(blocked, f"dataset.root={root}", "format=json")
    assert placeless.returncode == 2
    assert "no figure" in placeless.stderr
    assert json.loads(placeless.stdout)["figure"] is None


@pytest.mark.slow
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
        (["--hydra-help"], ["allowed are --help, --cfg job"]),
        (["--cfg", "hydra"], ["allowed are --help, --cfg job"]),
        (["dataset=streets", "dataset.num_train=0"], ["dataset.num_train=0; allowed are"]),
        (["dataset=streets", "dataset.render_size=[120]"], ["dataset.render_size=[120]; allowed are [height,width]"]),
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
    train = np.zeros(256, np.int64)
    train[[3, 8, 11]] = [5, 4, 100]
    name, baseline = costs.one_class(train, pixels, LABELS)
    assert name == "Road"
    assert baseline == (pytest.approx(0.6 / 3), pytest.approx(0.6))
    train[8] = 6
    assert costs.one_class(train, pixels, LABELS) == ("Car", (pytest.approx(0.2 / 3), pytest.approx(0.2)))


def test_the_majority_of_each_pixel() -> None:
    train = [np.array(rows, np.uint8) for rows in ([[0, 3], [8, 11]], [[0, 3], [3, 11]], [[3, 3], [8, 11]])]
    truth = [np.array([[0, 3], [3, 11]], np.uint8)]  # answered by 0 3 8 (and anything for the void)
    baseline = costs.majority_per_pixel(costs.count_classes(train, LABELS), truth, LABELS)
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
