"""Checkpoints that were torn, flipped, killed or made for another network."""

import contextlib
import gc
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import StepLR

from src.checkpoint import Checkpoints
from src.durable import write_durably
from src.errors import CheckpointError
from src.evaluation import read_saved
from src.manifest import MANIFESTS, read_manifests
from src.models.attunet import AttU_Net
from src.restore import load_last, load_weights, read_checkpoint
from src.state import EpochTotals, TrainState, copied

ROOT = Path(__file__).parent.parent
UNREADABLE = Path("/proc/self/mem")  # a regular file that says EIO


def make_state(width: int = 4) -> TrainState:
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as training has it
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    totals = EpochTotals(2, torch.device("cpu"))
    return TrainState(model, optimizer, StepLR(optimizer, 1), GradScaler("cpu", enabled=False), totals)


def train(state: TrainState, score: float) -> bool:
    """One epoch of one step; returns whether it was the best."""
    state.optimizer.zero_grad()
    state.model(torch.randn(2, 3, 8, 8)).square().mean().backward()
    state.optimizer.step()
    state.scheduler.step()
    state.epoch += 1
    return state.note_score(score, "max")


def save(checkpoints: Checkpoints, state: TrainState, is_best: bool | None = None) -> None:
    """Saves after an epoch, or within one, and waits until it is written."""
    if is_best is None:
        checkpoints.save_last(state)
    else:
        checkpoints.save_epoch(state, is_best)
    checkpoints.finish()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_the_manifest_tells_the_truth_of_every_file(folder: Path) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, every=1, keep=2)
    for score in (0.1, 0.3, 0.2):
        save(checkpoints, state, train(state, score))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == names(folder) - {"manifest.json", "manifest_copy.json"}
    kept = ["last.pt", "last_previous.pt", "best.pt", "best_previous.pt", "best.safetensors", "epoch_0002.pt", "epoch_0003.pt"]
    assert set(manifest) == set(kept)
    for name, entry in manifest.items():
        content = (folder / name).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert {name: entry["epoch"] for name, entry in manifest.items()} == {
        "last.pt": 3,
        "last_previous.pt": 2,
        "best.pt": 2,
        "best_previous.pt": 1,
        "best.safetensors": 2,
        "epoch_0002.pt": 2,
        "epoch_0003.pt": 3,
    }
    assert manifest["last.pt"]["best_score"] == 0.3


def test_best_holds_the_weights_of_the_best_epoch(folder: Path) -> None:
    state, checkpoints, kept = make_state(), Checkpoints(folder, None, 5), []
    for score in (0.1, 0.3, 0.3, 0.2):
        save(checkpoints, state, train(state, score))
        kept.append(weights(state.model))
    assert same(read_checkpoint(folder / "best.pt")["model"], kept[1])
    assert same(read_checkpoint(folder / "last.pt")["model"], kept[3])
    assert not same(kept[1], kept[3])
    assert names(folder) - {"manifest_copy.json"} == {
        "manifest.json",
        "best.pt",
        "best_previous.pt",
        "best.safetensors",
        "last.pt",
        "last_previous.pt",
    }


@pytest.mark.parametrize(
    ("every", "keep", "left"),
    [(None, 5, []), (1, 1, [6]), (1, 3, [4, 5, 6]), (2, 2, [4, 6]), (4, 5, [4]), (7, 5, [])],
)
def test_what_is_kept_is_bounded(folder: Path, every: int | None, keep: int, left: list[int]) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, every, keep)
    for _ in range(6):
        save(checkpoints, state, train(state, 0.5))
    assert {name for name in names(folder) if name.startswith("epoch_")} == {f"epoch_{epoch:04d}.pt" for epoch in left}
    for epoch in left:
        assert read_checkpoint(folder / f"epoch_{epoch:04d}.pt")["epoch"] == epoch


def test_the_newest_are_kept_beyond_epoch_9999_and_after_a_resume(folder: Path) -> None:
    state = make_state()
    state.epoch = 9997
    for _ in range(4):  # each time as a resumed process would: the manifest is read again
        train(state, 0.5)
        save(Checkpoints(folder, every=1, keep=2), state, False)
    assert {name for name in names(folder) if name.startswith("epoch_")} == {"epoch_10000.pt", "epoch_10001.pt"}


def test_everything_that_training_needs_comes_back(folder: Path) -> None:
    state, other = make_state(), make_state()
    train(state, 0.25)
    state.step, state.totals.images = 3, 24
    state.totals.loss += 1.5
    save(Checkpoints(folder, None, 1), state)
    load_last(folder, other)
    assert same(weights(other.model), weights(state.model))
    assert other.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    for parameter, loaded in zip(state.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(state.optimizer.state[parameter]["momentum_buffer"], other.optimizer.state[loaded]["momentum_buffer"])
    assert (other.epoch, other.step, other.best_score, other.best_epoch) == (1, 3, 0.25, 1)
    assert (other.totals.images, other.totals.loss.item()) == (24, 1.5)
    assert (other.scheduler.last_epoch, other.scheduler.get_last_lr()) == (1, state.scheduler.get_last_lr())


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_noticed(folder: Path, where: float) -> None:
    state = make_state()
    save(Checkpoints(folder, None, 1), state)
    content = bytearray((folder / "last.pt").read_bytes())
    content[int(where * len(content))] ^= 1
    (folder / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt.*damaged"):
        load_last(folder, make_state())


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_in_half, Path.unlink])
def test_the_one_before_takes_the_place_of_a_damaged_one(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.1))
    before = weights(state.model)
    save(checkpoints, state, train(state, 0.2))
    for name in ("best.pt", "best_previous.pt"):  # each a file of its own, as on a disk that knows no second names
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    damage(folder / "last.pt")
    other = make_state()
    load_last(folder, other)
    assert same(weights(other.model), before)
    assert other.epoch == 1
    (told,) = [record.getMessage() for record in caplog.records]
    assert str(folder / "last.pt") in told
    assert "going on from last_previous.pt" in told
    for name, following, epoch in (("last_previous.pt", "best.pt", 2), ("best.pt", "best_previous.pt", 1)):
        caplog.clear()
        damage(folder / name)
        load_last(folder, other)
        assert other.epoch == epoch
        assert caplog.records[-1].getMessage().endswith(f"going on from {following}")
    damage(folder / "best_previous.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt.*; .*last_previous\.pt.*; .*best\.pt.*; .*best_previous\.pt"):
        load_last(folder, make_state())


def make_unreadable(*files: Path) -> None:
    """As a disk that gives up makes them."""
    if not UNREADABLE.exists():
        pytest.skip("this system has no file that gives an error when it is read")
    for file in files:
        file.unlink(missing_ok=True)
        file.symlink_to(UNREADABLE)


def test_a_file_that_cannot_be_read_is_passed_over_and_replaced(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.1))
    save(checkpoints, state, train(state, 0.2))
    make_unreadable(folder / "last.pt", folder / "manifest.json")
    other = make_state()
    load_last(folder, other)
    assert other.epoch == 1
    assert "last.pt: cannot be read (Input/output error)" in caplog.text
    save(Checkpoints(folder, None, 1), state, train(state, 0.3))
    load_last(folder, other)
    assert other.epoch == 3


def test_a_checkpoint_and_both_manifests_that_cannot_be_read(folder: Path) -> None:
    state = make_state()
    save(Checkpoints(folder, None, 1), state, train(state, 0.1))
    manifests = [folder / "manifest.json", folder / "manifest_copy.json"]
    make_unreadable(folder / "last.pt", *manifests)
    with pytest.raises(CheckpointError, match="no checkpoint can be checked"):
        load_last(folder, make_state())
    for file in manifests:
        file.unlink()
    save(Checkpoints(folder, None, 1), state, train(state, 0.2))
    assert read_checkpoint(folder / "last.pt")["epoch"] == 2


def test_weights_alone_are_no_state_to_go_on_from(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, 1, 1)
    for score in (0.1, 0.2):
        save(checkpoints, state, train(state, score))
    put_into(folder / "last.pt", read_checkpoint(folder / "epoch_0002.pt"))
    other = make_state()
    load_last(folder, other)
    assert other.epoch == 1
    assert "last.pt: lacks optimizer, scheduler, scaler, totals and 3 more" in caplog.text


def test_a_checkpoint_without_a_manifest_is_taken_and_the_lack_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = make_state()
    save(Checkpoints(folder, None, 1), state, train(state, 0.1))
    for name in ("manifest.json", "manifest_copy.json"):
        (folder / name).unlink()
    other = make_state()
    load_last(folder, other)
    assert other.epoch == 1
    assert "manifest.json: not there, so that nothing says which checkpoint is which" in caplog.text
    caplog.clear()
    assert read_saved(folder / "best.pt")["epoch"] == 1
    assert "manifest.json: not there" in caplog.text


def remove_manifests(folder: Path) -> None:
    for name in MANIFESTS:
        (folder / name).unlink()


def test_without_any_manifest_no_other_tensors_are_loaded(folder: Path) -> None:
    """torch itself loads a weight whose bit was flipped, and says nothing."""
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.1))
    save(checkpoints, state, train(state, 0.2))
    remove_manifests(folder)
    file, weight = folder / "last.pt", state.model.state_dict()["0.weight"]
    content = bytearray(file.read_bytes())
    content[content.index(weight.permute(0, 2, 3, 1).numpy().tobytes())] ^= 1
    file.unlink()
    file.write_bytes(content)
    assert not torch.equal(torch.load(file, weights_only=True)["model"]["0.weight"], weight)
    with pytest.raises(CheckpointError, match=r"last\.pt: damaged.*its checksums do not agree"):
        load_weights(file, make_state().model)
    with pytest.raises(CheckpointError, match=r"last\.pt: damaged"):
        read_saved(file)
    other = make_state()
    load_last(folder, other)
    assert other.epoch == 1


@pytest.mark.parametrize(
    ("one", "two", "epoch"),
    [
        ("last.pt", "best.pt", 3),
        ("last.pt", "last_previous.pt", 2),
        ("last.pt", "best_previous.pt", 3),
        ("best.pt", "last.pt", 3),
    ],
)
def test_an_exchanged_file_is_not_taken_for_another(
    folder: Path, caplog: pytest.LogCaptureFixture, one: str, two: str, epoch: int
) -> None:
    """Both are whole, and the manifest knows both."""
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    for score in (0.1, 0.3, 0.2, 0.15):
        save(checkpoints, state, train(state, score))
    (folder / one).rename(folder / "other")
    (folder / two).rename(folder / one)
    (folder / "other").rename(folder / two)
    other = make_state()
    load_last(folder, other)
    assert other.epoch == epoch
    assert "last.pt: damaged, or another file under this name" in caplog.text
    for name in {one, two} & {"best.pt", "last.pt"}:
        with pytest.raises(CheckpointError, match=rf"{name}: damaged, or another file under this name"):
            read_saved(folder / name)
        with pytest.raises(CheckpointError, match=rf"{name}: damaged, or another file under this name"):
            load_weights(folder / name, make_state().model)


def test_a_file_that_is_being_replaced_is_known_before_and_after(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill leaves it: the manifest says what comes, its copy what is there."""
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.1))
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    save(checkpoints, state, train(state, 0.05))
    (folder / "manifest_copy.json").write_bytes(before["manifest_copy.json"])
    for name, epoch in (("last.pt", 1), ("last.pt", 2)):
        other = make_state()
        content = before[name] if epoch == 1 else (folder / name).read_bytes()
        copy = shutil.copytree(folder, folder.parent / f"killed {epoch}")
        (copy / name).write_bytes(content)
        load_last(copy, other)
        assert other.epoch == epoch
        save(Checkpoints(copy, None, 1), other, train(other, 0.02))
        assert read_checkpoint(copy / "last_previous.pt", read_manifests(copy))["epoch"] == epoch
        assert (copy / "manifest.json").read_bytes() == (copy / "manifest_copy.json").read_bytes()


def put_into(file: Path, content: Any) -> None:
    """A checkpoint as somebody else made it, with its digest in the manifests."""
    file.unlink()  # it may be another one too
    torch.save(content, file)
    for manifest in (file.parent / name for name in MANIFESTS):
        entries = json.loads(manifest.read_text())
        entries[file.name]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(entries))


def change(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """Sets a value deep in a checkpoint."""

    def apply(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to(content[keys[-1]]) if callable(to) else to

    return apply


def deep() -> list[Any]:
    nested: list[Any] = [torch.zeros(1).to_sparse()]
    for _ in range(100):
        nested = [nested]
    return nested


WEIGHT = ("model", "0.weight")
MOMENTUM = ("optimizer", "state", 0, "momentum_buffer")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change("optimizer", to=5), "optimizer int instead of dict"),
        (change("optimizer", to=None), "optimizer NoneType instead of dict"),
        (change("optimizer", "param_groups", to=[]), "cannot be continued"),
        (change("optimizer", "param_groups", 0, "lr", to="x"), r"optimizer\.param_groups\.0\.lr str instead of float"),
        (change("optimizer", "state", to=[1]), r"optimizer\.state list instead of dict"),
        (change(*MOMENTUM, to=lambda tensor: tensor.to_sparse()), "holds a tensor that is sparse"),
        (change(*MOMENTUM, to=lambda tensor: tensor.to("meta")), "or without values"),
        (change("scheduler", to=[]), "scheduler list instead of dict"),
        (change("scheduler", "last_epoch", to="x"), r"scheduler\.last_epoch str instead of int"),
        (change("totals", to=3), "totals int instead of dict"),
        (change("totals", "images", to=None), r"totals\.images NoneType instead of int"),
        (change("totals", "confusion", to=torch.zeros(7)), r"\[7\] of torch.float32 instead of \[2, 2\] of torch.int64"),
        (change("epoch", to="x"), "epoch str instead of int"),
        (change("epoch", to=-1), r"epoch, step, best_epoch and totals\.images are \[-1, 0, 2, 0\]"),
        (change("step", to=1.5), "epoch, step, best_epoch"),
        (change("best_score", to="high"), "best_score str instead of float"),
        (change("model", to=5), "holds int, expected a dictionary of named tensors"),
        (change("model", to=lambda model: {1: 2} | model), "expected a dictionary of named tensors"),
        (change(*WEIGHT, to=5), r"0\.weight int instead of Tensor"),
        (change(*WEIGHT, to=lambda tensor: tensor.to_sparse()), "holds a tensor that is sparse"),
        (change(*WEIGHT, to=lambda tensor: tensor.to("meta")), "or without values"),
        (change(*WEIGHT, to=lambda tensor: tensor.to(torch.complex64)), r"0\.weight \[4, 3, 3, 3\] of torch.complex64 "),
        (change(*WEIGHT, to=lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)), "quantized or"),
        (change("best_score", to=deep()), "holds a tensor that is sparse"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on what is old or new
def test_a_malformed_state_is_one_line_and_the_one_before_is_taken(
    folder: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Any], None], why: str
) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    for score in (0.1, 0.2):
        save(checkpoints, state, train(state, score))
    content = read_checkpoint(folder / "last.pt")
    change(content)
    put_into(folder / "last.pt", content)
    other = make_state()
    load_last(folder, other)
    assert other.epoch == 1
    (told,) = caplog.messages
    assert re.match(rf"^{folder}/last\.pt.*{why}.*; going on from last_previous\.pt$", told), told


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"last.pt": {}}',
        '{"last.pt": 3}',
        '{"last.pt": {"sha256": "x", "size": 1}}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_damaged_manifest_is_told_of_and_done_without(folder: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    state = make_state()
    save(Checkpoints(folder, None, 1), state, train(state, 0.1))
    (folder / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    other = make_state()
    load_last(folder, other)
    assert same(weights(other.model), weights(state.model))
    assert "manifest.json: damaged" in caplog.records[0].getMessage()
    (folder / "manifest_copy.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match="no checkpoint can be checked"):
        load_last(folder, make_state())


def test_a_save_is_a_copy_of_the_moment(folder: Path) -> None:
    """What training changes while the thread still writes is not in the file."""
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    train(state, 0.1)
    expected = weights(state.model)
    checkpoints.save_last(state)
    for parameter in state.model.parameters():
        parameter.data.zero_()
    checkpoints.finish()
    assert same(read_checkpoint(folder / "last.pt")["model"], expected)


def test_a_best_epoch_is_written_once_and_an_epoch_that_is_not_leaves_best_alone(folder: Path) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    for score, is_shared in ((0.1, True), (0.3, True), (0.2, False), (0.4, True)):
        is_best = train(state, score)
        save(checkpoints, state, is_best)
        assert (folder / "best.pt").samefile(folder / "last.pt") == is_shared == is_best
    assert {name: read_checkpoint(folder / name)["epoch"] for name in ("best.pt", "best_previous.pt", "last_previous.pt")} == {
        "best.pt": 4,
        "best_previous.pt": 2,
        "last_previous.pt": 3,
    }


def test_where_there_are_no_hard_links_both_are_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    for score in (0.1, 0.3):
        save(checkpoints, state, train(state, score))
    assert not (folder / "best.pt").samefile(folder / "last.pt")
    assert (folder / "best.pt").read_bytes() == (folder / "last.pt").read_bytes()
    assert read_checkpoint(folder / "best_previous.pt")["epoch"] == 1


def test_weights_for_other_programs_come_with_the_end_also_after_a_kill(folder: Path) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    checkpoints.save_epoch(state, train(state, 0.1))
    checkpoints.wait()
    assert not (folder / "best.safetensors").exists()  # here the process is killed
    resumed = make_state()
    load_last(folder, resumed)
    best = weights(resumed.model)
    save(Checkpoints(folder, None, 1), resumed, train(resumed, 0.05))
    assert same(read_checkpoint(folder / "best.safetensors"), best)


def test_a_full_disk_costs_a_save_and_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.1))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with monkeypatch.context() as full:
        full.setattr("src.checkpoint.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        train(state, 0.2)
        checkpoints.save_last(state)
        with pytest.raises(CheckpointError, match="MiB free"):
            checkpoints.finish()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    save(checkpoints, state)  # there is room again
    assert checkpoints.failures == 1


def test_what_found_no_room_is_saved_once_there_is_some(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.1))
    with monkeypatch.context() as full:
        full.setattr("src.checkpoint.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        checkpoints.save_epoch(state, train(state, 0.9))
        best = weights(state.model)
        checkpoints._writer.finish()
        assert checkpoints.unsaved == ["best.pt", "last.pt"]
    save(checkpoints, state, train(state, 0.2))
    assert checkpoints.unsaved == []
    assert same(read_checkpoint(folder / "best.pt")["model"], best)
    assert same(read_checkpoint(folder / "best.safetensors"), best)


def test_what_finds_no_room_epoch_after_epoch_does_not_pile_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, checkpoints, held = make_state(), Checkpoints(folder, 1, 1), []

    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr("src.checkpoint.write_durably", refuse)
        for _ in range(5):
            checkpoints.save_epoch(state, train(state, 0.5))  # the first one is the best
            checkpoints.wait()
            gc.collect()
            held.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert held[1:] == [held[1]] * 4
    assert checkpoints.failures == 5 * 3  # the best one is tried again with each newer state
    save(checkpoints, state)
    assert checkpoints.unsaved == [f"epoch_000{epoch}.pt" for epoch in range(1, 6)]
    assert [read_checkpoint(folder / name)["epoch"] for name in ("best.pt", "last.pt")] == [1, 5]


@pytest.mark.parametrize("name", ["last.pt", "last_previous.pt"])
def test_a_damaged_file_does_not_take_the_place_of_a_whole_one(folder: Path, name: str) -> None:
    state = make_state()
    for score in (0.1, 0.2):
        save(Checkpoints(folder, None, 1), state, train(state, score))
    (folder / name).write_bytes(b"damaged")
    other = "last_previous.pt" if name == "last.pt" else "last.pt"
    whole = (folder / other).read_bytes()
    train(state, 0.3)
    save(Checkpoints(folder, None, 1), state)  # as another process would
    assert (folder / "last_previous.pt").read_bytes() == whole
    (folder / "last.pt").unlink()
    load_last(folder, make_state())


def test_a_copy_keeps_the_kind_of_every_container() -> None:
    milestones, named = Counter({2: 1, 4: 1}), make_state().model.state_dict()
    copies = copied({"milestones": milestones, "model": named, "pair": (1, [torch.ones(2)])})
    assert copies["milestones"] == milestones
    assert isinstance(copies["milestones"], Counter)
    assert vars(copies["model"])["_metadata"] == vars(named)["_metadata"]  # of nn.Module, beside its keys
    assert same(copies["model"], named)
    assert not any(copies["model"][key].data_ptr() == named[key].data_ptr() for key in named)
    assert isinstance(copies["pair"], tuple)


def test_saves_within_an_epoch_come_when_they_are_due(folder: Path) -> None:
    state = make_state()
    for seconds, due in ((None, False), (1000.0, False), (0.0, True)):
        checkpoints = Checkpoints(folder, None, 1, seconds)
        checkpoints.save_if_due(state)
        checkpoints.finish()
        assert (folder / "last.pt").exists() == due


def test_a_file_cut_short_is_noticed(folder: Path) -> None:
    save(Checkpoints(folder, None, 1), make_state())
    content = (folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_last(folder, make_state())
    shutil.copy(folder / "last.pt", folder.parent)
    with pytest.raises(CheckpointError, match="not a checkpoint that can be loaded safely"):
        load_weights(folder.parent / "last.pt", make_state().model)


def test_a_best_of_an_epoch_that_was_lost_is_taken_back(folder: Path) -> None:
    """A kill came between best.pt and last.pt; trained again on a GPU, the epoch is not the best one any more."""
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.2))
    best = weights(state.model)
    save(checkpoints, state, train(state, 0.1))
    checkpoints.save_epoch(state, train(state, 0.3))
    checkpoints.wait()
    shutil.copy(folder / "last_previous.pt", folder / "other")
    (folder / "other").replace(folder / "last.pt")  # and the manifests know it under this name
    for manifest in (folder / name for name in MANIFESTS):
        entries = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(entries | {"last.pt": entries["last_previous.pt"]}))
    resumed, again = make_state(), Checkpoints(folder, None, 1)
    load_last(folder, resumed)
    again.go_on_from(resumed)
    assert read_saved(folder / "best.pt")["epoch"] == 3
    save(again, resumed, train(resumed, 0.15))
    assert (resumed.epoch, resumed.best_epoch) == (3, 1)
    assert same(read_saved(folder / "best.pt")["model"], best)
    assert same(read_checkpoint(folder / "best.safetensors"), best)


def test_an_epoch_file_that_a_kill_left_unwritten_is_written_on_resume(folder: Path) -> None:
    """last.pt of that epoch was there already."""
    state, checkpoints = make_state(), Checkpoints(folder, None, 2)
    save(checkpoints, state, train(state, 0.2))
    save(checkpoints, state, train(state, 0.1))
    resumed, again = make_state(), Checkpoints(folder, 2, 2)
    load_last(folder, resumed)
    again.go_on_from(resumed)
    again.wait()
    assert read_checkpoint(folder / "epoch_0002.pt")["epoch"] == 2
    assert same(read_checkpoint(folder / "epoch_0002.pt")["model"], weights(state.model))


def test_slow_writes_leave_no_state_behind_and_do_not_pile_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs pass while one file is written, and each asks for two files or three."""
    done, may_write, keep = Semaphore(0), Semaphore(0), 3
    written: list[str] = []

    def slowly(path: Path, *arguments: Any) -> None:
        may_write.acquire()
        write_durably(path, *arguments)
        written.append(path.name)
        done.release()

    monkeypatch.setattr("src.checkpoint.write_durably", slowly)
    state, checkpoints = make_state(), Checkpoints(folder, 1, keep)
    for epoch in range(1, 41):
        checkpoints.save_epoch(state, train(state, 0.1 if epoch != 5 else 0.2))
        assert len(checkpoints._writer._waiting) <= 1 + keep
        if epoch % 2 == 0:
            may_write.release()
            assert done.acquire(timeout=30)
        if epoch >= 6:
            age = epoch - (checkpoints.saved or {"epoch": 0})["epoch"]
            assert age <= 8  # two states and a file of weights, each of which takes two epochs
    assert written.count("last.pt") >= 8
    assert sum(name.startswith("epoch_") for name in written) >= 8  # they are not starved either
    for _ in range(10):
        may_write.release()
    checkpoints.finish()
    assert {name: entry["epoch"] for name, entry in read_manifests(folder)[0].items()} == {
        **{"last.pt": 40, "best.pt": 5, "best_previous.pt": 1, "best.safetensors": 5},
        **{f"epoch_00{epoch}.pt": epoch for epoch in (38, 39, 40)},
        "last_previous.pt": read_checkpoint(folder / "last_previous.pt")["epoch"],
    }
    assert checkpoints.failures == 0


def test_no_last_state_is_there_before_the_best_that_it_knows_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that went on from it would never write those weights again."""
    state, checkpoints = make_state(), Checkpoints(folder, 1, 2)
    seen = []

    def look(path: Path, *arguments: Any) -> None:
        write_durably(path, *arguments)
        entries = json.loads((folder / "manifest.json").read_text())
        if path.name == "last.pt":
            seen.append(entries["last.pt"]["best_epoch"] <= entries["best.pt"]["epoch"])

    monkeypatch.setattr("src.checkpoint.write_durably", look)
    monkeypatch.setattr("src.checkpoint.share_durably", lambda *_: False)
    for score in (0.1, 0.2, 0.3, 0.25, 0.4, 0.1):
        checkpoints.save_epoch(state, train(state, score))
    checkpoints.wait()
    assert seen
    assert all(seen)
    assert [read_saved(folder / name)["epoch"] for name in ("best.pt", "last.pt")] == [5, 6]


class Unpicklable:
    def __reduce__(self) -> tuple[Any, ...]:
        raise OSError("No space left on device")


def test_a_torn_write_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    train(state, 0.5)
    state.optimizer.param_groups[0]["note"] = Unpicklable()
    with pytest.raises(CheckpointError, match=r"could not be saved \(No space left"):
        save(checkpoints, state)
    assert checkpoints.failures == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    load_last(folder, make_state())


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import torch
from test_checkpoint import Checkpoints, make_state, save, train
torch.set_num_threads(1)
home, state = Path(sys.argv[1]), make_state()
(home / "000").mkdir()
save(Checkpoints(home / "000", None, 1), state, train(state, 0.1))
is_best = train(state, 0.2)

def kill_at_each_operation(start):
    # Saves once more in copies of a folder and is killed at the first, the second, ... file operation; gives the folders.
    at, folders = 0, []
    while True:
        at += 1
        folder = home / f"{start.name}-{at:03d}"
        shutil.copytree(start, folder)
        pid = os.fork()
        if pid == 0:
            left = at
            def hook(event, arguments):
                nonlocal left
                if event in ("open", "os.rename", "os.remove", "os.link") and str(folder) in str(arguments[0]):
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
            checkpoints = Checkpoints(folder, None, 1)
            sys.addaudithook(hook)
            save(checkpoints, state, is_best)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        folders.append(folder)
        if status == 0:
            return folders  # that was more operations than there are
        assert os.WIFSIGNALED(status), status

once = kill_at_each_operation(home / "000")
for folder in once[::int(sys.argv[2])]:
    kill_at_each_operation(folder)
"""


@pytest.mark.slow
def test_a_kill_at_any_file_operation_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path), "9"]  # and a second time after every ninth of the first kills
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    folders = sorted(tmp_path.iterdir())
    assert len(folders) > 60  # untouched, killed once or twice, and not killed
    epochs, refused = [], []
    for folder in folders:
        state = make_state()
        try:
            load_last(folder, state)
            epochs.append(state.epoch)
        except CheckpointError as error:
            refused.append(str(error))
    assert refused == []
    assert set(epochs) == {1, 2}


def test_weights_of_another_run_are_taken_from_best_and_from_last(folder: Path) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    save(checkpoints, state, train(state, 0.5))
    best = weights(state.model)
    save(checkpoints, state, train(state, 0.4))
    for name, expected in (("best.pt", best), ("last.pt", weights(state.model))):
        model = make_state().model
        assert not same(weights(model), expected)
        load_weights(folder / name, model)
        assert same(weights(model), expected)


def test_the_best_weights_leave_as_safetensors_too(folder: Path) -> None:
    state, checkpoints = make_state(), Checkpoints(folder, None, 1)
    state.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save(checkpoints, state, train(state, 0.1))
    save(checkpoints, state, train(state, 0.5))
    best = weights(state.model)
    save(checkpoints, state, train(state, 0.4))
    with safe_open(folder / "best.safetensors", framework="numpy") as file:  # as another program reads it
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(best)
        assert all(np.array_equal(file.get_tensor(key), best[key].numpy()) for key in best)
    model = make_state().model
    load_weights(folder / "best.safetensors", model)
    assert same(weights(model), best)


def test_weights_of_another_width_are_refused_with_keys_and_shapes(folder: Path) -> None:
    torch.save({"model": AttU_Net(num_classes=11, channels=[4, 8]).state_dict()}, folder / "best.pt")
    model = AttU_Net(num_classes=11, channels=[4, 16])
    before = weights(model)
    with pytest.raises(CheckpointError) as caught:
        load_weights(folder / "best.pt", model)
    differing = [key for key, value in before.items() if AttU_Net(11, [4, 8]).state_dict()[key].shape != value.shape]
    assert differing[0] in str(caught.value)
    assert str(list(before[differing[0]].shape)) in str(caught.value)
    assert "model." in str(caught.value)
    assert same(weights(model), before)
    with pytest.raises(CheckpointError, match=r"lacks .*(up|dec|level|gate|\d)"):
        load_weights(folder / "best.pt", AttU_Net(num_classes=11, channels=[4, 8, 16]))


def test_a_run_of_another_network_is_not_continued(folder: Path) -> None:
    save(Checkpoints(folder, None, 1), make_state(width=4))
    state = make_state(width=6)
    before = weights(state.model)
    with pytest.raises(CheckpointError, match=r"0\.weight \[4, 3, 3, 3\] of torch.float32 instead of \[6, 3, 3, 3\] of"):
        load_last(folder, state)
    assert same(weights(state.model), before)


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt: no such checkpoint"):
        load_last(folder, make_state())
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such checkpoint"):
        load_weights(folder / "nowhere.pt", make_state().model)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_weights(folder, make_state().model)


class RunsCode:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_file_that_runs_code_is_refused_and_runs_none(tmp_path: Path, save: str) -> None:
    trace, file = tmp_path / "it ran", tmp_path / "evil.pt"
    content = {"model": RunsCode(trace)}
    if save == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="safely"):
        load_weights(file, make_state().model)
    assert not trace.exists()
    with contextlib.suppress(RuntimeError):  # what comes back is no checkpoint
        torch.load(file, weights_only=False)
    assert trace.exists()  # so it would have


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}: not a checkpoint"):
            load_weights(tmp_path / name, make_state().model)


def test_a_list_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds list"):
        load_weights(tmp_path / "list.pt", make_state().model)
