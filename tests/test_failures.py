"""Runs that end because something outside their code gave way: one line says what, and what to do."""

import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from processes import Process, everyone, the_end, the_run, wait_for
from torch import Tensor, nn

from src.build import Experiment, build
from src.cli import prepare
from src.datasets.batches import Batches
from src.datasets.reader import SegmentationDataset
from src.errors import OutOfMemoryError, WorkerError
from src.failures import find_batch_that_fits, told_in_one_line
from src.loading import Loader, worker_errors
from src.loop import StepRecord, fit
from src.signals import STOP_SIGNALS, Interrupted, StopSignals
from src.train import write_pictures

LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import src.build

build = src.build.build

def build_then_limit(config):
    experiment = build(config)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000, resource.RLIM_INFINITY))
    return experiment

src.build.build = build_then_limit
from src.train import main
main()
"""


STUCK = """
import sys
from test_failures import Loader, Stuck
batches = iter(Loader(Stuck(), batch_size=None, num_workers=1, persistent_workers=True))
sys.exit("the end")
"""


SILENT = """
import time
import src.loading
from src.datasets.batches import Batches
from src.train import main

make, src.loading.GRACE_SECONDS = Batches.__getitem__, 1

def silent(self, keys):
    if keys[0][0] == 1:  # from the second epoch on
        print("silent", flush=True)
        time.sleep(1000)
    return make(self, keys)

Batches.__getitem__ = silent
main()
"""


SPAWNED = """
import multiprocessing, signal
from torch.utils.data import Dataset
from src.loading import Loader

class Blocked(Dataset):
    def __getitem__(self, index):
        if index:
            raise IndexError
        return sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, []))

    def __len__(self):
        return 1

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    print(*Loader(Blocked(), batch_size=None, num_workers=1))
"""


class Full(nn.Module):
    """A network for which a device has room up to some number of images."""

    def __init__(self, model: nn.Module, room: int) -> None:
        super().__init__()
        self.model, self.room = model, room
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nAnd more lines")
        return self.model(images)


@pytest.fixture
def full(tiny_overrides: list[str]) -> Callable[[int], tuple[Any, Experiment, Full]]:
    def make(room: int) -> tuple[Any, Experiment, Full]:
        _, config = prepare("config", tiny_overrides)
        experiment = build(config)
        experiment.state.model = Full(experiment.state.model, room)
        return config, experiment, experiment.state.model

    return make


@pytest.mark.parametrize(
    ("room", "asked", "advice"),
    [
        (3, [4, 2], r"loader\.batch_size=2 does \(a step of it was tried\)"),
        (1, [4, 2, 1], r"loader\.batch_size=1 does"),
        (0, [4, 2, 1], "not even one image does"),
    ],
)
def test_memory_that_is_full_names_what_fits(full: Any, room: int, asked: list[int], advice: str) -> None:
    config, experiment, network = full(room)
    message = (
        rf"^loader\.batch_size=4: a step of 4 images of 24x32 in (?:fp32|bf16) does not fit into the memory of cpu; {advice}"
    )
    with pytest.raises(OutOfMemoryError, match=message) as caught, told_in_one_line(config, experiment):
        list(fit(experiment.state, experiment.setup, lambda state: state.epoch == 1, 1, config.monitor))
    assert "\n" not in str(caught.value)
    assert network.asked == asked


def test_memory_that_is_full_in_validation(full: Any) -> None:
    config, experiment, network = full(4)
    message = r"^loader\.batch_size=4: training steps do, but validation of so many images in .* of cpu; use fewer, or a smaller"

    def train() -> None:
        for record in fit(experiment.state, experiment.setup, lambda state: state.epoch == 1, 1, config.monitor):
            if isinstance(record, StepRecord) and record.step == record.num_steps:
                network.room = 0

    with pytest.raises(OutOfMemoryError, match=message), told_in_one_line(config, experiment):
        train()
    assert network.asked == [4, 4, 4, 4]


def test_memory_that_is_full_in_pictures(full: Any) -> None:
    config, experiment, _ = full(1)
    with (
        pytest.raises(
            OutOfMemoryError, match=r"^training\.panel_images=2: so many at once do not fit .* of cpu; use fewer\. What"
        ),
        told_in_one_line(config, experiment),
    ):
        write_pictures(config, experiment, None)  # pyright: ignore[reportArgumentType]  # it fails before it writes


def test_other_errors_pass(full: Any) -> None:
    config, experiment, _ = full(9)
    in_a_worker = RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):")
    for error in (RuntimeError("some bug"), in_a_worker, ZeroDivisionError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, told_in_one_line(config, experiment):
            raise error
        assert caught.value is error


def test_a_batch_that_fits_is_a_batch_that_was_trained(full: Any) -> None:
    _, experiment, _ = full(2)
    before = [parameter.clone() for parameter in experiment.state.model.parameters()]
    assert find_batch_that_fits(experiment, 8, (24, 32)) == 2
    after = list(experiment.state.model.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


class Stuck(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        time.sleep(1000)
        return index

    def __len__(self) -> int:
        return 1


def test_a_stuck_worker_is_deaf_to_signals_and_ends_with_its_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = iter(Loader(Stuck(), batch_size=None, num_workers=1))
    (worker,) = batches._workers
    for number in STOP_SIGNALS:
        os.kill(worker.pid, number)
    worker.join(0.5)
    assert worker.is_alive()
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds until torch loses its patience
    batches._shutdown_workers()
    assert worker.exitcode == -signal.SIGKILL


def test_a_silent_worker_ends_the_run_and_does_not_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.loading.SILENT_SECONDS", 2)
    batches = iter(Loader(Stuck(), batch_size=None, num_workers=1))
    (worker,) = batches._workers
    os.kill(worker.pid, signal.SIGSTOP)
    message = r"^loader\.num_workers=1: no batch came for 2 seconds\. .* a larger --shm-size$"
    with pytest.raises(WorkerError, match=message), worker_errors(1):
        next(batches)
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


def test_a_signal_is_heard_while_a_batch_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.loading.GRACE_SECONDS", 1)
    batches = iter(Loader(Stuck(), batch_size=None, num_workers=1))
    (worker,) = batches._workers
    with StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as caught, worker_errors(1):
            next(batches)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


class TooLarge(SegmentationDataset):
    """Batches that find no room in shared memory, as where /dev/shm is small."""

    def __init__(self) -> None:
        pass

    def batch(self, keys: Any) -> tuple[Tensor, Tensor]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # of this worker, for files in memory too
        return torch.zeros(2000, dtype=torch.uint8), torch.zeros(2000, dtype=torch.uint8)


@pytest.mark.timeout(60)
def test_a_batch_without_room_in_shared_memory_is_one_line() -> None:
    loader = Loader(Batches(TooLarge()), batch_size=None, sampler=[[0], [1]], num_workers=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(WorkerError) as caught, worker_errors(1):
        list(loader)
    assert re.fullmatch(r"loader\.num_workers=1: a worker died \(RuntimeError: .*\)\..* --shm-size", str(caught.value))


@pytest.mark.parametrize("where", ["train_loader", "val_loader"])
def test_a_signal_while_waiting_leaves_the_state_of_the_last_step(full: Any, where: str) -> None:
    """What the caller saves at the last record continues as if nothing had been."""
    config, experiment, _ = full(9)
    state, setup = experiment.state, experiment.setup

    loader = getattr(setup, where)
    whole = loader._get_iterator

    def cut() -> Iterator[Any]:
        yield from itertools.islice(whole(), 1)
        raise Interrupted(signal.SIGTERM)

    loader._get_iterator = cut
    records: list[Any] = []

    def train() -> None:
        for record in fit(state, setup, lambda _: False, 1, config.monitor):
            records.append((record, {name: tensor.clone() for name, tensor in state.model.state_dict().items()}))

    with pytest.raises(Interrupted):
        train()
    steps = 1 if where == "train_loader" else 3
    assert [type(record) for record, _ in records] == [StepRecord] * (steps + 1)
    (before, weights), (last, weights_at_last) = records[-2:]
    assert (last.epoch, last.step, last.images) == (1, steps, 4 * steps) == (before.epoch, before.step, before.images)
    assert all(torch.equal(weights[name], weights_at_last[name]) for name in weights)
    assert (state.epoch, state.step) == (0, steps)


# --- real processes ---------------------------------------------------------------------------------------------------


def children(process: Process) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_worker_that_is_killed(start: Any, tiny_overrides: list[str], tmp_path: Path) -> None:
    process = start("-m", "src.train", *tiny_overrides, "training.epochs=500", "loader.num_workers=2")
    wait_for(process, "epoch 2/")  # so that the first epoch is saved
    os.kill(children(process)[0], signal.SIGKILL)
    line, _ = the_end(process, tmp_path)
    assert line.startswith("error: loader.num_workers=2: a worker died")
    assert "training.resume=auto" in line
    again = start("-m", "src.train", *tiny_overrides, "training.epochs=500", "loader.num_workers=2", "training.resume=auto")
    wait_for(again, "resumed after epoch")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_run_that_waits_for_a_batch_saves_and_ends_at_a_signal(start: Any, tiny_overrides: list[str], tmp_path: Path) -> None:
    process = start("-c", SILENT, *tiny_overrides, "loader.num_workers=2", start_new_session=True)
    wait_for(process, "silent")
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (128 + signal.SIGTERM, "")
    assert json.loads((the_run(tmp_path) / "run.json").read_text())["status"] == "interrupted"
    assert torch.load(the_run(tmp_path) / "checkpoints" / "last.pt", weights_only=True)["epoch"] == 1
    assert everyone(process.pid) == []


@pytest.mark.slow
def test_workers_are_deaf_where_processes_are_spawned(tmp_path: Path) -> None:
    """As on macOS."""
    (tmp_path / "spawned.py").write_text(SPAWNED)
    command, env = [sys.executable, str(tmp_path / "spawned.py")], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == str(sorted(int(number) for number in STOP_SIGNALS))


def test_a_stuck_worker_does_not_keep_a_process_from_its_end() -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", STUCK], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "the end")


@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_file_that_vanishes_while_training(
    start: Any, tiny_overrides: list[str], tiny_data: Path, tmp_path: Path, num_workers: int
) -> None:
    words = [*tiny_overrides, "training.epochs=500", f"loader.num_workers={num_workers}", "dataset.cache=none"]
    process = start("-m", "src.train", *words)
    wait_for(process, "epoch 1/")
    (tiny_data / "train" / "frame_003.png").unlink()
    line, _ = the_end(process, tmp_path)
    assert line.startswith(f"error: {tiny_data}/train/frame_003.png: cannot be opened")


@pytest.mark.slow
def test_a_file_that_vanishes_after_it_was_kept_is_not_missed(
    start: Any, tiny_overrides: list[str], tiny_data: Path, tmp_path: Path
) -> None:
    process = start("-m", "src.train", *tiny_overrides, "training.epochs=6", "dataset.cache=disk")
    wait_for(process, "epoch 1/")
    (tiny_data / "train" / "frame_003.png").unlink()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_machine_without_memory(start: Any, tiny_overrides: list[str], tmp_path: Path) -> None:
    """Twelve images of 24x32 would never fill it: the network is made wide."""
    words = [*tiny_overrides, "model.channels=[192,8]", "loader.batch_size=12", "dataset.image_size=[96,96]", "precision=fp32"]
    line, _ = the_end(start("-c", LITTLE_MEMORY, *words), tmp_path)
    assert line.startswith("error: loader.batch_size=12: a step of 12 images of 96x96 in fp32 does not fit")
    assert "does (a step of it was tried)" in line or "not even one image" in line


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_workers_die_with_a_killed_parent(start: Any, tiny_overrides: list[str]) -> None:
    process = start("-m", "src.train", *tiny_overrides, "training.epochs=500", "loader.num_workers=2")
    wait_for(process, "epoch 1/")
    workers = children(process)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert [worker for worker in workers if Path(f"/proc/{worker}").exists()] == []
