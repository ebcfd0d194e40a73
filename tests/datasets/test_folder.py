"""Any segmentation folder: the README's example, and what is written wrongly."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from src.datasets.folder import Folder
from src.datasets.label_sets import named_labels
from src.errors import ConfigError, DataError

COLORS = {"background": (0, 0, 0), "sign": (255, 0, 0), "other sign": (200, 30, 30), "pole": (0, 0, 255), "void": (255, 255, 255)}
SIZE = (32, 48)
CLASSES = {"background": [0, 0, 0], "sign": [[255, 0, 0], [200, 30, 30]], "pole": [0, 0, 255]}
FOLDERS = {"train": ["train/images", "train/masks"], "val": ["val/images", "val/masks"]}


def readme_example() -> str:
    """The YAML file that docs/extending.md shows."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    _, _, after = text.partition("`conf/dataset/signs.yaml`:\n\n")
    lines = []
    for line in after.splitlines():
        if not line.startswith("    "):
            break
        lines.append(line.removeprefix("    "))
    return "\n".join(lines) + "\n"


def write_signs(root: Path) -> dict[str, list[np.ndarray]]:
    """Masks of all five colours, and images that show them; gives the ids that they stand for."""
    palette = np.array(list(COLORS.values()), np.uint8)
    ids = np.array([0, 1, 1, 2, 255], np.uint8)
    expected: dict[str, list[np.ndarray]] = {}
    for split, number in (("train", 8), ("val", 3)):
        expected[split] = []
        for index in range(number):
            generator = np.random.default_rng([number, index])
            blocks = generator.integers(0, 5, (4, 6))
            kinds = np.kron(blocks, np.ones((8, 8), np.int64))
            for folder, picture in (("images", palette[kinds] // 2 + 60), ("masks", palette[kinds])):
                file = root / split / folder / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                noise = generator.integers(0, 9, picture.shape, np.uint8) if folder == "images" else np.uint8(0)
                Image.fromarray(picture + noise).save(file)
            expected[split].append(ids[kinds])
    return expected


def test_colours_become_ids(tmp_path: Path) -> None:
    expected = write_signs(tmp_path)
    for split, masks in expected.items():
        data = Folder(str(tmp_path), split, FOLDERS, CLASSES, [255, 255, 255], cache="memory")
        assert [label.name for label in data.classes] == ["background", "sign", "pole"]
        assert (data.num_classes, data.ignore_index) == (3, 255)
        for index, mask in enumerate(masks):
            np.testing.assert_array_equal(data[index][1], mask)


def test_ids_and_lists_of_ids(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    stored = np.array([[0, 7, 9], [255, 7, 0]], np.uint8)
    Image.fromarray(np.dstack([stored] * 3)).save(tmp_path / "images" / "x.png")
    Image.fromarray(stored).save(tmp_path / "masks" / "x_mask.png")
    folders = {"train": ["images", "masks"]}
    data = Folder(str(tmp_path), "train", folders, {"ground": 0, "thing": [7, 9]}, 255, "_mask", cache="memory")
    np.testing.assert_array_equal(data[0][1], [[0, 1, 1], [255, 1, 0]])
    with pytest.raises(DataError, match=r"x_mask\.png: value 255 \(1 pixels\) is no class; allowed are 0, 7, 9;"):
        Folder(str(tmp_path), "train", folders, {"ground": 0, "thing": [7, 9]}, None, "_mask", cache="memory")
    with pytest.raises(DataError, match="no mask of the same name"):
        Folder(str(tmp_path), "train", folders, {"ground": 0, "thing": [7, 9]}, 255, cache="memory")


def test_a_binary_mask(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    stored = np.array([[0, 255], [255, 0]], np.uint8)
    for folder in ("images", "masks"):
        Image.fromarray(stored).save(tmp_path / folder / "x.png")
    data = Folder(str(tmp_path), "train", {"train": ["images", "masks"]}, {"ground": 0, "object": 255}, cache="memory")
    np.testing.assert_array_equal(data[0][1], [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("classes", "void", "message"),
    [
        ({"a": 0}, None, "1 classes; allowed are 2 to 255"),
        ({"a": 0, "b": 0}, None, "0 stands for two classes, b is one of them"),
        ({"a": [0, 0, 0], "b": [[1, 1, 1], [0, 0, 0]]}, None, r"\(0, 0, 0\) stands for two classes, b"),
        ({"a": 0, "b": 1}, 1, "1 stands for two classes, void"),
        ({"a": 0, "b": "red"}, None, r"dataset\.classes\.b='red'; allowed are an id, a colour"),
        ({"a": 0, "b": -1}, None, r"dataset\.classes\.b=-1"),
        ({"a": 0, "b": [1, 2, 300]}, None, r"b=\[1, 2, 300\]: a colour has numbers from 0 to 255; three ids"),
        ({"a": 0, "b": {"ids": [1, 2, 300]}}, None, None),
        ({"a": 0, "b": [1, 2, 3]}, None, r"dataset\.classes\.b: \[1, 2, 3\]: a colour, or three ids\? Others have ids"),
        ({"a": 0, "b": [[1, 2]]}, None, r"dataset\.classes\.b=\[1, 2\]"),
    ],
    ids=str,
)
def test_classes_that_are_written_wrongly(classes: dict[str, Any], void: Any, message: str | None) -> None:
    if message is None:
        assert named_labels(classes, void).index_ids == {0: 0, 1: 1, 2: 1, 300: 1}
        return
    with pytest.raises(ConfigError, match=message):
        named_labels(classes, void)


def test_a_split_without_both_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.folders\.val=\['val'\]; needed are"):
        Folder(str(tmp_path), "train", {"train": ["a", "b"], "val": ["val"]}, CLASSES)
    with pytest.raises(DataError, match="no test split here; the folders layout has train, val"):
        Folder(str(tmp_path), "test", FOLDERS, CLASSES)


@pytest.mark.slow
def test_the_readmes_example_trains(tmp_path: Path) -> None:
    write_signs(tmp_path / "data" / "signs")
    conf = tmp_path / "conf" / "dataset"
    conf.mkdir(parents=True)
    (conf / "signs.yaml").write_text(readme_example())
    found = ["dataset=signs", f"hydra.searchpath=[file://{tmp_path / 'conf'}]"]
    small = ["model.channels=[4,8]", "training.epochs=1", "loader.batch_size=4", "device=cpu", "threads=1", "name=signs"]
    for program, words in (("doctor", found), ("train", [*found, *small, "dataset.image_size=[32,48]"])):
        done = subprocess.run(
            [sys.executable, "-m", f"src.{program}", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "outputs" / "signs").iterdir()
    with (run / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert [tag for tag in row if tag.startswith("val/iou/")] == ["val/iou/background", "val/iou/sign", "val/iou/pole"]
