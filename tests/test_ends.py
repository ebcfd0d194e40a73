"""What is true once a run has ended, or was killed: its scores are those of its checkpoint, and finished stays finished."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import write_split
from PIL import Image

from src import train
from src.build import Experiment
from src.cli import prepare
from src.durable import write_durably
from src.run_folder import claim_folder, read_run

Train = Callable[..., float]


@pytest.fixture
def train_here(tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains in this process, in `tmp_path`, and lets go of the run's folder."""
    monkeypatch.chdir(tmp_path)
    locks: list[Any] = []
    monkeypatch.setattr("src.run_folder.takes_lock", lambda lock: locks.append(lock) or True)

    def train_here(*words: str) -> float:
        launch, config = prepare("config", [*tiny_overrides, "name=x", *words])
        try:
            return train.train(config, launch)
        finally:
            for lock in locks:
                lock.close()

    return train_here


def the_run(home: Path) -> Path:
    (folder,) = (home / "outputs" / "x").iterdir()
    return folder


def row(folder: Path, epoch: int) -> dict[str, Any]:
    """The scores of an epoch by `metrics.jsonl`."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (found,) = [row for row in rows if row["epoch"] == epoch]
    return {tag: value for tag, value in found.items() if tag != "epoch"}


# --- scores and checkpoints -------------------------------------------------------------------------------------------


def test_run_json_is_never_ahead_of_the_checkpoint_and_a_resumed_one_knows_no_lost_epoch(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk holds the first state alone when the run is killed after its third epoch."""
    may_write = threading.Event()

    def slowly(path: Path, *arguments: Any) -> None:
        write_durably(path, *arguments)
        may_write.wait(60)

    def die(config: Any, experiment: Experiment, recorder: Any) -> None:
        if experiment.state.epoch == 4:
            shutil.copytree(the_run(tmp_path), tmp_path / "killed")  # as SIGKILL would have left it, but for its lock
            may_write.set()

    with monkeypatch.context() as slow:
        slow.setattr("src.checkpoint.write_durably", slowly)
        slow.setattr(train, "write_pictures", die)
        train_here("training.epochs=4", "monitor.tag=train/loss", "monitor.mode=min")  # each epoch is the best
    run, killed = the_run(tmp_path), tmp_path / "killed"
    (saved,) = {name: entry["epoch"] for name, entry in manifest(killed).items() if name == "best.pt"}.values()
    assert saved == 1
    told = read_run(killed)
    assert (told.get("epoch", 0), told.get("best_epoch", 0)) <= (saved, saved)
    assert read_run(run)["epoch"] == read_run(run)["best_epoch"] == manifest(run)["last.pt"]["epoch"] == 4
    assert read_run(run)["best_scores"] == read_run(run)["final_scores"] == row(run, 4)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "checkpoints" / "manifest.json").read_text())


def test_a_resumed_run_takes_its_scores_from_the_state_that_it_resumes(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json knows two epochs more, as one that was killed while a save waited."""
    train_here("training.epochs=1")
    run = the_run(tmp_path)
    lost = {"status": "failed", "epoch": 3, "best_epoch": 3, "best_score": 0.99}
    lost |= {key: {"val/miou": 0.99} for key in ("best_scores", "final_scores")}
    (run / "run.json").write_text(json.dumps(read_run(run) | lost))

    def press(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("src.loop.evaluate", press)
    with pytest.raises(KeyboardInterrupt):
        train_here("training.epochs=2", f"training.resume='{run}'")
    facts = read_run(run)
    assert (facts["status"], facts["epoch"], facts["best_epoch"]) == ("interrupted", 1, 1)
    assert facts["best_scores"] == facts["final_scores"] == row(run, 1)
    assert facts["best_score"] == row(run, 1)["val/miou"]


# --- after training ---------------------------------------------------------------------------------------------------


def test_baselines_of_splits_of_different_sizes(train_here: Train, tiny_data: Path, tmp_path: Path) -> None:
    shutil.rmtree(tiny_data / "val")
    shutil.rmtree(tiny_data / "valannot")
    write_split(tiny_data, "val", 5, (36, 40))
    train_here("training.epochs=1", "training.baselines=true")
    facts = read_run(the_run(tmp_path))
    assert facts["status"] == "finished"
    train_masks, val_masks = (
        np.stack([np.array(Image.open(file)) for file in sorted((tiny_data / f"{split}annot").iterdir())])
        for split in ("train", "val")
    )
    train_masks = np.stack([cv2.resize(mask, (40, 36), interpolation=cv2.INTER_NEAREST_EXACT) for mask in train_masks])
    majority = np.stack([(train_masks == label).sum(0) for label in range(11)]).argmax(0)
    counts, scores = val_masks != 11, []
    for label in (0, 3, 8):
        answer, truth = (majority == label) & counts, val_masks == label
        scores.append((answer & truth).sum() / (answer | truth).sum())
    assert facts["baselines"]["majority_per_pixel"] == pytest.approx(np.mean(scores))
    assert 0.3 < facts["baselines"]["colour_and_row"] <= 1


def test_nothing_that_comes_after_training_fails_the_run(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("odd")

    monkeypatch.setattr("src.datasets.baselines.majority_map_miou", fail)
    monkeypatch.setattr("src.recorder.Recorder._write_spreadsheet", fail)
    assert 0 <= train_here("training.epochs=1", "training.baselines=true") <= 1
    facts, said = read_run(the_run(tmp_path)), capsys.readouterr().out
    assert (facts["status"], facts["error"]) == ("finished", None)
    assert "baselines: not written (odd); the run goes on" in said
    assert "metrics.xlsx: not written (odd); the run goes on" in said
    assert "beware: 2 writes failed on the way" in said
    assert "Traceback" in (the_run(tmp_path) / "train.log").read_text()


def test_ctrl_c_while_baselines_are_computed_leaves_the_run_finished(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("src.datasets.baselines.majority_map_miou", press)
    with pytest.raises(KeyboardInterrupt):
        train_here("training.epochs=1", "training.baselines=true")
    assert read_run(the_run(tmp_path))["status"] == "finished"


# --- nothing left to do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["auto", "its folder", "auto in its folder"])
def test_a_finished_run_is_left_as_it_is(train_here: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    given = ["hydra.run.dir=outputs/x/given"] if way == "auto in its folder" else []
    score = train_here("training.epochs=1", *given)
    run = the_run(tmp_path)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    capsys.readouterr()
    resume = f"training.resume='{run}'" if way == "its folder" else "training.resume=auto"
    assert train_here("training.epochs=1", *given, resume) == score
    assert the_run(tmp_path) == run
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    said = capsys.readouterr().out
    assert f"finished, best val/miou: {score:.4f} at epoch 1 of 1; nothing is left to do" in said
    train_here("training.epochs=2", f"training.resume='{run}'")
    assert read_run(run)["epoch"] == 2


def test_an_unfinished_run_comes_before_a_finished_one_that_is_newer(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here("training.epochs=1")
    run = the_run(tmp_path)
    older = claim_folder(run.parent, "older")
    shutil.copytree(run, older, dirs_exist_ok=True)
    (older / "run.json").write_text(json.dumps(read_run(run) | {"status": "interrupted", "start": "2020-01-01T00:00:00+00:00"}))
    train_here("training.epochs=1", "training.resume=auto")
    assert [read_run(folder)["status"] for folder in (run, older)] == ["finished", "finished"]


def test_a_finished_run_on_other_data_is_no_reason_not_to_train(train_here: Train, tmp_path: Path) -> None:
    """The root is in no run's id, so that data may move."""
    train_here()
    write_split(tmp_path / "others", "train", 12, (24, 32), seed=5)
    write_split(tmp_path / "others", "val", 5, (24, 32), seed=5)
    train_here("training.resume=auto", f"dataset.root='{tmp_path / 'others'}'")
    first, second = sorted((tmp_path / "outputs" / "x").iterdir())
    assert read_run(first)["short_id"] == read_run(second)["short_id"]
    assert read_run(first)["data_fingerprint"] != read_run(second)["data_fingerprint"]
