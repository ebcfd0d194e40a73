import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.datasets.baselines import colour_and_row_miou, majority_map_miou
from src.datasets.publishing import publishing
from src.datasets.street_scenes.scene import render_scene
from src.datasets.streets import SPLIT_STARTS, write_streets
from src.errors import DataError

PROJECT = Path(__file__).parents[2]
NUM_CLASSES, VOID = 11, 11
SMALL: dict[str, Any] = {"num_train": 3, "num_val": 2, "num_test": 1, "height": 48, "width": 64, "seed": 5}
WRITER = f"""
import sys
from pathlib import Path
from src.datasets.streets import write_streets
print("ready", flush=True)
sys.stdin.readline()
print(write_streets(Path(sys.argv[1]), **{SMALL!r}))
"""


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """A part of the quick start's train and val splits, at its size."""
    counts = {"train": 48, "val": 16}
    return {s: [render_scene(0, SPLIT_STARTS[s] + i, 120, 160) for i in range(n)] for s, n in counts.items()}


def start_writer(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_same_seed_and_index_give_the_same_scene() -> None:
    first = render_scene(3, 7, 60, 80)
    np.random.default_rng(0).random(10)
    render_scene(1, 1, 60, 80)
    second = render_scene(3, 7, 60, 80)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("other", [(3, 8), (4, 7), (7, 3)])
def test_other_seed_or_index_gives_another_scene(other: tuple[int, int]) -> None:
    image, mask = render_scene(3, 7, 60, 80)
    other_image, other_mask = render_scene(*other, 60, 80)
    assert not np.array_equal(image, other_image)
    assert not np.array_equal(mask, other_mask)


@pytest.mark.parametrize(("height", "width"), [(120, 160), (33, 75), (96, 64)])
def test_shapes_and_values(height: int, width: int) -> None:
    for index in range(4):
        image, mask = render_scene(0, index, height, width)
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        assert mask.shape == (height, width)
        assert mask.dtype == np.uint8
        assert mask.max() <= VOID
        assert image.std() > 5


@pytest.mark.parametrize("wrong", [(-1, 0, 120, 160), (0, -1, 120, 160), (0, 0, 20, 160), (0, 0, 120, 3)])
def test_wrong_arguments_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"0 or more|or more"):
        render_scene(*wrong)


def test_every_class_is_common_and_void_is_not(scenes: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    masks = np.stack([mask for _, mask in scenes["train"]])
    for label in range(NUM_CLASSES):
        present = ((masks == label).sum(axis=(1, 2)) > 20).mean()
        assert present > 1 / 3, f"class {label} is in {present:.0%} of the scenes"
        assert (masks == label).mean() > 0.01, f"class {label} covers {(masks == label).mean():.1%} of the pixels"
    assert 0.02 < (masks == VOID).mean() < 0.05


def test_colour_and_place_say_little(scenes: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    masks = {split: [mask for _, mask in pairs] for split, pairs in scenes.items()}
    assert majority_map_miou(masks["train"], masks["val"], NUM_CLASSES, VOID) < 0.25
    assert colour_and_row_miou(scenes["train"], scenes["val"], NUM_CLASSES, VOID) < 0.35


def test_layout_and_pairing_on_disk(tmp_path: Path) -> None:
    folder = write_streets(tmp_path / "data", **SMALL)
    assert folder.parent == tmp_path / "data"
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        names = [f"street_{number:05d}.png" for number in range(count)]
        assert sorted(file.name for file in (folder / split).iterdir()) == names
        assert sorted(file.name for file in (folder / f"{split}annot").iterdir()) == names
        for number, name in enumerate(names):
            image, mask = render_scene(5, SPLIT_STARTS[split] + number, 48, 64)
            with Image.open(folder / split / name) as stored, Image.open(folder / f"{split}annot" / name) as stored_mask:
                assert (stored.mode, stored_mask.mode) == ("RGB", "L")
                assert np.array_equal(np.asarray(stored), image)
                assert np.array_equal(np.asarray(stored_mask), mask)
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_second_call_writes_nothing(tmp_path: Path) -> None:
    folder = write_streets(tmp_path, **SMALL)
    before = {file: file.stat().st_mtime_ns for file in [folder, *folder.rglob("*")]}
    assert write_streets(tmp_path, **SMALL) == folder
    assert {file: file.stat().st_mtime_ns for file in [folder, *folder.rglob("*")]} == before


def test_other_arguments_never_share_a_folder(tmp_path: Path) -> None:
    least: dict[str, Any] = {"num_train": 1, "num_val": 1, "num_test": 1, "height": 32, "width": 32, "seed": 0}
    variants = [least] + [least | {key: least[key] + 1} for key in least]
    assert len({write_streets(tmp_path, **variant) for variant in variants}) == len(variants)


@pytest.mark.parametrize("wrong", [{"num_val": 0}, {"num_train": 100_001}, {"height": 8}, {"seed": -1}])
def test_refused_arguments_leave_nothing_behind(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"allowed|or more"):
        write_streets(tmp_path / "data", **(SMALL | wrong))
    assert not (tmp_path / "data").exists()


def test_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    writer = start_writer(tmp_path)
    assert writer.stdin is not None
    writer.stdin.write("\n")
    writer.stdin.flush()
    while not list(tmp_path.glob(".*/train")):
        assert writer.poll() is None, "the writer ended before it could be killed"
    writer.kill()
    writer.communicate()
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".")
    folder = write_streets(tmp_path, **SMALL)
    assert len(list(folder.rglob("*.png"))) == 2 * (3 + 2 + 1)
    assert list(tmp_path.iterdir()) == [folder], "what the killed writer left is still there"
    assert len(list(folder.iterdir())) == 6


def test_a_living_writer_keeps_its_folder_and_so_does_somebody_else(tmp_path: Path) -> None:
    (tmp_path / ".notes.partial_1").mkdir()
    with publishing(tmp_path / "slow") as partial:
        (partial / "file").write_text("whole")
        with publishing(tmp_path / "quick"):
            pass
    assert (tmp_path / "slow" / "file").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.partial_1", "quick", "slow"]


def test_a_failing_writer_removes_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr("src.datasets.streets.write_split", fail)
    with pytest.raises(DataError, match=r"cannot be written \(disk full\); use another dataset\.root"):
        write_streets(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_the_loser_of_the_rename_keeps_the_winners_folder(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with publishing(final) as partial:
        (partial / "file").write_text("loser")
        final.mkdir()
        (final / "file").write_text("winner")
    assert (final / "file").read_text() == "winner"
    assert list(tmp_path.iterdir()) == [final]


def test_two_processes_at_once_give_one_whole_folder(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    answers = []
    for writer in writers:
        answer, complaint = writer.communicate(timeout=60)
        assert writer.returncode == 0, complaint
        answers.append(answer.strip())
    assert answers[0] == answers[1]
    assert [str(path) for path in tmp_path.iterdir()] == [answers[0]]
    assert len(list(Path(answers[0]).rglob("*.png"))) == 2 * (3 + 2 + 1)
