"""What is written is what was given: in every file the same numbers, and nothing twice."""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.errors import UserError
from src.figures import compose_attention, compose_panel
from src.loop import EpochRecord
from src.recorder import Recorder, read_rows

CLASSES = (("Sky", (128, 128, 128)), ("Road", (128, 64, 128)), ('Car, "parked"', (64, 0, 128)))
RED, LIGHT, GREY = (220, 50, 47), (235, 235, 235), (120, 120, 120)


def make_record(epoch: int) -> EpochRecord:
    scores = {
        "train/loss": 2.0 / epoch,
        "train/pixel_accuracy": 0.5,
        "lr": 0.1 / 3**epoch,
        "val/loss": 1 / 3 + epoch,
        "val/miou": 0.1 * epoch,
        "val/pixel_accuracy": 1e-17 * epoch,
        "val/class_accuracy": 0.25,
        "val/iou/Sky": 0.75,
        "val/iou/Road": math.nan,
        'val/iou/Car, "parked"': math.inf if epoch == 2 else 0.5,
    }
    return EpochRecord(epoch, scores, ("Road",), np.zeros((3, 3), np.int64), False)


def expected_row(epoch: int) -> dict[str, Any]:
    scores = make_record(epoch).scores
    return {"epoch": epoch} | {tag: value if math.isfinite(value) else None for tag, value in scores.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("figures", "tensorboard"):
        (tmp_path / name).mkdir()
    return tmp_path


def write(folder: Path, epochs: Iterator[int] | range, finished: int, close: bool = True) -> Recorder:
    recorder = Recorder(folder, CLASSES, 255, finished)
    for epoch in epochs:
        recorder.write(make_record(epoch))
    if close:
        recorder.close()
    else:
        recorder.flush()
    return recorder


def csv_rows(folder: Path) -> list[dict[str, Any]]:
    table = list(csv.reader(io.StringIO((folder / "metrics.csv").read_text(), newline="")))
    assert {len(line) for line in table} == {len(table[0])}
    rows = [dict(zip(table[0], (float(cell) if cell else None for cell in line), strict=True)) for line in table[1:]]
    return [row | {"epoch": int(row["epoch"] or 0)} for row in rows]


def jsonl_rows(folder: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> float:
        raise ValueError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def xlsx_rows(folder: Path) -> list[dict[str, Any]]:
    book = load_workbook(folder / "metrics.xlsx")
    (sheet,) = book.worksheets
    header, *lines = [[cell.value for cell in line] for line in sheet.iter_rows()]
    return [dict(zip(map(str, header), line, strict=True)) for line in lines]


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def points(folder: Path) -> dict[str, dict[int, float]]:
    accumulator = events(folder)
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        steps = [event.step for event in accumulator.Scalars(tag)]
        assert len(steps) == len(set(steps)), f"{tag} has a step twice: {steps}"
        found[tag] = {event.step: event.value for event in accumulator.Scalars(tag)}
    return found


def check_everywhere(folder: Path, epochs: int) -> None:
    """Each file holds exactly the rows 1..epochs."""
    expected = [expected_row(epoch) for epoch in range(1, epochs + 1)]
    assert jsonl_rows(folder) == expected
    assert csv_rows(folder) == expected
    for row, wanted in zip(xlsx_rows(folder), expected, strict=True):  # a spreadsheet keeps 16 digits
        assert list(row) == list(wanted)
        assert [v is None for v in row.values()] == [v is None for v in wanted.values()]
        assert [v for v in row.values() if v is not None] == pytest.approx(
            [v for v in wanted.values() if v is not None], rel=1e-14
        )
    assert list(csv_rows(folder)[0]) == list(expected[0])  # the columns too, in one order
    shown = points(folder)
    for tag in expected[0]:
        wanted = {row["epoch"]: row[tag] for row in expected if row[tag] is not None}
        if tag != "epoch":
            assert shown.get(tag, {}) == pytest.approx(wanted, rel=1e-6)
    assert set(shown) <= set(expected[0])


def test_every_file_holds_the_same_numbers(folder: Path) -> None:
    write(folder, range(1, 4), finished=0)
    check_everywhere(folder, 3)


def test_what_is_no_number_is_empty_null_and_no_point(folder: Path) -> None:
    write(folder, range(1, 4), finished=0)
    assert [row["val/iou/Road"] for row in jsonl_rows(folder)] == [None] * 3
    assert [row["val/iou/Road"] for row in csv_rows(folder)] == [None] * 3
    assert [row["val/iou/Road"] for row in xlsx_rows(folder)] == [None] * 3
    assert "val/iou/Road" not in points(folder)
    assert list(points(folder)['val/iou/Car, "parked"']) == [1, 3]
    assert "nan" not in (folder / "metrics.csv").read_text().lower()


def test_a_resume_adds_to_what_is_there(folder: Path) -> None:
    write(folder, range(1, 3), finished=0)
    write(folder, range(3, 5), finished=2)
    check_everywhere(folder, 4)


def test_a_resume_drops_rows_written_after_the_checkpoint(folder: Path) -> None:
    write(folder, range(1, 4), finished=0, close=False)  # killed between the third row and its checkpoint
    write(folder, range(3, 5), finished=2)
    check_everywhere(folder, 4)


def test_rows_that_a_kill_took_are_missed_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The disk was full, a checkpoint found room again sooner than the rows that waited, and then the process was killed."""
    write(folder, range(1, 2), finished=0, close=False)
    assert caplog.messages == []
    write(folder, range(4, 5), finished=3, close=False)
    assert caplog.messages == [f"{folder / 'metrics.jsonl'}: no row of epochs [2, 3], which were trained"]
    assert [row["epoch"] for row in read_rows(folder)] == [1, 4]


def test_a_resume_in_the_first_epoch_starts_over(folder: Path) -> None:
    write(folder, range(1, 2), finished=0, close=False)
    write(folder, range(1, 3), finished=0)
    check_everywhere(folder, 2)


def test_a_resume_with_nothing_left_to_do_changes_nothing(folder: Path) -> None:
    write(folder, range(1, 3), finished=0)
    before = {name: (folder / name).read_bytes() for name in ("metrics.csv", "metrics.jsonl")}
    write(folder, range(0), finished=2)
    assert {name: (folder / name).read_bytes() for name in before} == before
    check_everywhere(folder, 2)


@pytest.mark.parametrize("left", [1, 20])
def test_a_line_cut_off_by_a_kill_is_ignored(folder: Path, left: int) -> None:
    write(folder, range(1, 3), finished=0, close=False)
    for name in ("metrics.jsonl", "metrics.csv"):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(lines) + lines[-1][:left])
    assert read_rows(folder) == [expected_row(1), expected_row(2)]
    write(folder, range(3, 4), finished=2)
    check_everywhere(folder, 3)


def test_a_damaged_line_is_named_in_one_line(folder: Path) -> None:
    write(folder, range(1, 4), finished=0)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(lines[0] + bytes(len(lines[1]) - 1) + b"\n" + lines[2])
    with pytest.raises(UserError, match=r"^.*metrics\.jsonl: damaged \(.*\); mend or remove that line"):
        write(folder, range(4, 5), finished=3)
    assert len((folder / "metrics.jsonl").read_bytes().splitlines()) == 3


def test_a_run_of_no_epoch_writes_no_table(folder: Path) -> None:
    write(folder, range(0), finished=0)
    assert read_rows(folder) == []
    assert not list(folder.glob("metrics.*"))


# --- pictures --------------------------------------------------------------------------------------------------------


def make_images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images of 6x8 whose truth is Sky above Road, with a column of void; the prediction is wrong in one place."""
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)
    truths = np.zeros((2, 6, 8), np.uint8)
    truths[:, 3:] = 1
    truths[:, :, 7] = 255
    predictions = truths.copy()
    predictions[:, :, 7] = 2
    predictions[:, 1, 2] = 2
    return images, truths, predictions


def palette() -> np.ndarray:
    colors = np.zeros((256, 3), np.uint8)
    colors[:3] = [color for _, color in CLASSES]
    return colors


def test_a_panel_shows_image_truth_prediction_and_error_side_by_side() -> None:
    images, truths, predictions = make_images()
    panel = compose_panel(images[0], truths[0], predictions[0], 255, palette())
    assert panel.shape == (6, 4 * 8 + 3 * 4, 3)
    assert panel.dtype == np.uint8
    image, truth, prediction, error = (panel[:, start : start + 8] for start in (0, 12, 24, 36))
    assert np.array_equal(image, images[0])
    for y in range(6):
        for x in range(8):
            assert tuple(prediction[y, x]) == CLASSES[predictions[0, y, x]][1]
            assert tuple(truth[y, x]) == ((0, 0, 0) if x == 7 else CLASSES[truths[0, y, x]][1])
            assert tuple(error[y, x]) == (GREY if x == 7 else RED if (y, x) == (1, 2) else LIGHT)
    for start in (8, 20, 32):
        assert (panel[:, start : start + 4] == 255).all()


def test_attention_is_dark_where_a_gate_shut_and_bright_where_it_let_through() -> None:
    image = make_images()[0][0]
    gate = np.zeros((3, 4), np.float32)
    gate[0, 0] = 1.0
    picture = compose_attention(image, [gate, np.full((6, 8), 0.5, np.float32)])
    assert picture.shape == (6, 3 * 8 + 2 * 4, 3)
    assert np.array_equal(picture[:, :8], image)
    shown = picture[:, 12:20].astype(int).sum(axis=2)
    assert (shown[:2, :2] > 600).all()  # a gate's value covers its 2x2 pixels
    assert (shown[2:] < 20).all()
    assert (shown[:, 2:] < 20).all()
    middle = picture[:, 24:32].reshape(-1, 3)
    assert (middle == middle[0]).all()
    assert 20 < middle[0].astype(int).sum() < 600


def test_pictures_reach_tensorboard_and_the_folder(folder: Path) -> None:
    images, truths, predictions = make_images()
    recorder = write(folder, range(1, 3), finished=0, close=False)
    recorder = Recorder(folder, CLASSES, 255, 2)
    recorder.write_panels(2, images, truths, predictions)
    maps = [np.random.default_rng(1).random((2, 3, 4)), np.ones((2, 6, 8))]
    recorder.write_attention(2, images, maps, ["gate 1 (3x4)", "gate 2 (6x8)"])
    recorder.close()
    accumulator = events(folder)
    assert set(accumulator.Tags()["images"]) == {"panel/0", "panel/1", "attention/0", "attention/1"}
    for number in range(2):
        (event,) = accumulator.Images(f"panel/{number}")
        assert event.step == 2
        shown = np.array(Image.open(io.BytesIO(event.encoded_image_string)))
        assert np.array_equal(shown, compose_panel(images[number], truths[number], predictions[number], 255, palette()))
        (event,) = accumulator.Images(f"attention/{number}")
        shown = np.array(Image.open(io.BytesIO(event.encoded_image_string)))
        assert np.array_equal(shown, compose_attention(images[number], [m[number] for m in maps]))
    assert {file.name for file in (folder / "figures").iterdir()} == {
        "panels_epoch_0002.png",
        "attention_epoch_0002.png",
        "curves.png",
    }
    with Image.open(folder / "figures" / "panels_epoch_0002.png") as opened:
        panels = np.array(opened.convert("RGB"))
    found = {tuple(color) for color in np.unique(panels.reshape(-1, 3), axis=0).tolist()}
    assert {RED, LIGHT, GREY, CLASSES[0][1], CLASSES[1][1]} <= found  # unsmoothed colours
    with Image.open(folder / "figures" / "curves.png") as curves:
        assert min(curves.size) > 300


def test_pictures_do_not_pile_up_in_memory_while_the_disk_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, file = write(folder, range(1, 2), finished=0, close=False), next((folder / "tensorboard").iterdir())
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    monkeypatch.setattr("src.events.MOST_WAITING", 100_000)

    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr("src.durable.append_durably", refuse)
        for epoch in range(2, 12):
            with pytest.raises(OSError, match="No space"):
                recorder.write(make_record(epoch))
            with pytest.raises(OSError, match="No space"):
                recorder.write_panels(epoch, noise, noise[..., 0], noise[..., 0])
    recorder.close()
    check_everywhere(folder, 11)  # rows and points are all there
    shown = [event.step for event in events(folder).Images("panel/0")]
    assert shown == list(range(2, 2 + len(shown)))
    assert 1 < len(shown) < 10
    assert file.stat().st_size < 200_000


def test_the_configuration_is_shown_as_text(folder: Path) -> None:
    recorder = Recorder(folder, CLASSES, 255, 0)
    recorder.write_text("config", "optimizer:\n  lr: 0.1\n")
    recorder.close()
    accumulator = events(folder)
    (event,) = accumulator.Tensors("config/text_summary")
    assert b"    optimizer:\n      lr: 0.1" in event.tensor_proto.string_val[0]
