"""Bytes that changed on the disk: what is loaded is what was saved, or an older save of it, or an error; never other tensors.

The design of arXiv:2511.18323: bit flips, lost ends and zeroed pages, on checkpoints, their manifest and decoded samples; and
files that were exchanged, copied over each other or removed.
"""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_split
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import StepLR

from src.checkpoint import Checkpoints
from src.datasets import reader
from src.datasets.camvid import CamVid
from src.errors import CheckpointError
from src.evaluation import read_saved
from src.manifest import read_manifests
from src.restore import load_last
from src.state import EpochTotals, TrainState

PAGE = 4096
FEW, MANY = 300, 2000
Damage = Callable[[bytearray], None]
Move = tuple[str, str, str]  # what is done, to a file and another


def make_state() -> TrainState:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    totals = EpochTotals(2, torch.device("cpu"))
    return TrainState(model, optimizer, StepLR(optimizer, 1), GradScaler("cpu", enabled=False), totals)


def everything(state: TrainState) -> list[torch.Tensor]:
    """All tensors that a checkpoint holds, and the numbers."""
    momenta = [s["momentum_buffer"] for s in state.optimizer.state_dict()["state"].values()]
    numbers = torch.tensor([state.epoch, state.step, state.best_score, state.best_epoch], dtype=torch.float64)
    return [t.clone() for t in [*state.model.state_dict().values(), *momenta, state.totals.confusion, numbers]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings are not looked at."""
    logger = logging.getLogger("src")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


@st.composite
def damages(draw: st.DrawFn, names: list[str]) -> list[tuple[str, Damage]]:
    """Some files, and what happens to each."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=0, max_size=6, unique=True))
    return [(name, draw(damage())) for name in chosen]


@st.composite
def damage(draw: st.DrawFn) -> Damage:
    """A bit flip, a lost end or a zeroed page, at any share of the file's length."""
    kind = draw(st.sampled_from(["flip", "cut", "zero"]))
    where, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))

    def apply(content: bytearray) -> None:
        place = int(where * len(content))
        if kind == "flip" and content:
            content[place] ^= 1 << bit
        elif kind == "cut":
            del content[place:]
        else:
            first = place // PAGE * PAGE
            end = min(first + PAGE, len(content))
            content[first:end] = bytes(end - first)

    return apply


def move(folder: Path, moves: list[Move]) -> None:
    for what, *names in moves:
        one, other = (folder / name for name in names)
        if what == "remove":
            one.unlink(missing_ok=True)
        elif one.exists() and other.exists() and one != other:
            contents = one.read_bytes(), other.read_bytes()
            other.write_bytes(contents[0])
            if what == "exchange":
                one.write_bytes(contents[1])


def corrupt(folder: Path, changes: list[tuple[str, Damage]]) -> None:
    for name, change in changes:
        content = bytearray((folder / name).read_bytes())
        change(content)
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[torch.Tensor]]]:
    """A folder with three states (the last two, and the best two), and what each of them holds."""
    folder = tmp_path_factory.mktemp("saved")
    state, generations = make_state(), []
    for score in (0.1, 0.3, 0.2):
        state.optimizer.zero_grad()
        state.model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        state.optimizer.step()
        state.epoch += 1
        with Checkpoints(folder, every=None, keep=1) as checkpoints:
            checkpoints.save_epoch(state, state.note_score(score, "max"))
        generations.append(everything(state))
    return folder, generations


NAMES = ["last.pt", "last_previous.pt", "best.pt", "best_previous.pt", "manifest.json", "manifest_copy.json"]
EPOCHS = {"last.pt": 3, "best.pt": 2}
MOVES = st.lists(
    st.tuples(st.sampled_from(["exchange", "copy", "remove"]), st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=3
)


def check_checkpoints(
    saved: tuple[Path, list[list[torch.Tensor]]], home: Path, moves: list[Move], changes: list[tuple[str, Damage]]
) -> str:
    folder, generations = saved
    copy = home / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    corrupt(copy, changes)
    move(copy, moves)
    for name, epoch in EPOCHS.items():  # as src.evaluate reads them
        with contextlib.suppress(CheckpointError):
            read = read_saved(copy / name)
            assert epoch == read["epoch"] or not read_manifests(copy), "another checkpoint was scored"
            weights = zip(read["model"].values(), generations[read["epoch"] - 1], strict=False)
            assert all(torch.equal(a, b) for a, b in weights), "other tensors were scored"
    state = make_state()
    try:
        load_last(copy, state)
    except CheckpointError:
        return "refused"
    loaded = everything(state)
    found = [all(torch.equal(a, b) for a, b in zip(loaded, kept, strict=True)) for kept in generations]
    assert any(found), "other tensors were loaded"
    return "newest" if found[-1] else "older"


@settings(max_examples=FEW, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES, changes=damages(NAMES))
def test_no_other_tensors_are_loaded(
    saved: tuple[Path, list[list[torch.Tensor]]], tmp_path: Path, moves: list[Move], changes: list[tuple[str, Damage]]
) -> None:
    check_checkpoints(saved, tmp_path, moves, changes)


@pytest.mark.slow
def test_thousands_of_damaged_checkpoints(saved: tuple[Path, list[list[torch.Tensor]]], tmp_path: Path) -> None:
    ends: dict[str, int] = {}

    @settings(max_examples=MANY, deadline=None, database=None)
    @given(moves=MOVES, changes=damages(NAMES))
    def many(moves: list[Move], changes: list[tuple[str, Damage]]) -> None:
        end = check_checkpoints(saved, tmp_path, moves, changes)
        ends[end] = ends.get(end, 0) + 1

    many()
    print(f"\n{sum(ends.values())} damaged folders: {ends}")
    assert sum(ends.values()) >= 1000
    assert ends.keys() >= {"older", "newest", "refused"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A data set, the folder of its decoded samples, and these."""
    home = tmp_path_factory.mktemp("kept")
    write_split(home / "data", "train", 4, (24, 32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CACHE_HOME", home / "cache")
        samples = CamVid(str(home / "data"), "train", cache="disk").samples
        pixels = np.stack([samples.flat(index) for index in range(4)])
    return home / "data", home / "cache", pixels


@settings(max_examples=FEW, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=damages(["pixels.bin", "header.json"]))
def test_no_other_samples_are_read(
    kept: tuple[Path, Path, np.ndarray], tmp_path: Path, changes: list[tuple[str, Damage]]
) -> None:
    root, cache, pixels = kept
    copy = tmp_path / "cache"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cache, copy)
    (folder,) = copy.iterdir()
    corrupt(folder, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CACHE_HOME", copy)
        data = CamVid(str(root), "train", cache="disk")
    np.testing.assert_array_equal([data.samples.flat(index) for index in range(4)], pixels)
    assert data.samples.facts.shapes == [(24, 32)] * 4
