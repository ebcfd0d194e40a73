"""Disks that fill up, folders that are taken away, signals at a bad moment, clocks that jump: with real processes.

The moment is certain: the process stops at one of its own calls, says so, and goes on when it is told to.
"""

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, write_split
from processes import Process, everyone, repeatable_rows, start_process, the_end, the_line, the_run, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src import train
from src.build import Experiment
from src.checkpoint import Checkpoints
from src.cli import prepare
from src.errors import WriteError
from src.resume import mark_dead_runs
from src.run_folder import RunFolder, claim_folder
from src.signals import Interrupted

Start = Callable[..., Process]
EPOCHS, STEPS = 6, 3  # of these in each epoch
WORDS = [
    *("dataset.image_size=null", "model.channels=[4,8]", "optimizer=adamw", "scheduler=constant", "device=cpu", "threads=1"),
    *(f"training.epochs={EPOCHS}", "loader.batch_size=4", "training.panel_images=2", "training.panel_every=2"),
    # always 0, so that the first epoch is the best, and later ones save last.pt alone
    *("training.on_nonfinite=skip", "monitor.tag=train/skipped_steps"),
]
STEP, VALIDATION, SAVE = "src.loop.train_step", "src.loop.count_confusion", "torch.save"
PAUSED = """
import os, sys
import torch, src.loop, src.run_folder
where, at = sys.argv.pop(1), [int(number) for number in sys.argv.pop(1).split(",")]
module, _, name = where.rpartition(".")
function, calls = getattr(sys.modules[module], name), 0

def pausing(*arguments):
    global calls
    calls += 1
    result = function(*arguments)
    if calls in at:
        print("paused", flush=True)
        os.read(0, 1)
    return result

setattr(sys.modules[module], name, pausing)
from src.train import main
main()
"""
CLOCK = """
import datetime, os, signal, sys, time
import src.loop, src.run_folder, src.times
step, real, back = src.loop.train_step, time.time, int(sys.argv.pop(1))
calls = 0

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

def counting(*arguments):
    global calls, back
    calls += 1
    if not back and calls == 7:
        back = 86400
    if calls == 11 and "training.resume=auto" not in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*arguments)

src.loop.train_step = counting
src.run_folder.datetime = src.times.datetime = Jumping
time.time = lambda: real() - back
from src.train import main
main()
"""
STOPPING = "stopping after this step; press again to stop now\n"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets the limits of another process")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing befell."""
    home = tmp_path_factory.mktemp("whole")
    process = start_process(home, "-m", "src.train", *make_words(home))
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return the_run(home)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return make_words(tmp_path)


def make_words(home: Path) -> list[str]:
    write_split(home / "data", "train", 4 * STEPS, (24, 32))
    write_split(home / "data", "val", 5, (24, 32))
    return [f"dataset.root='{home / 'data'}'", *WORDS]


def go_on(process: Process) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def resume(start: Start, words: list[str], home: Path, *before: str) -> Path:
    process = start(*(before or ("-m", "src.train")), *words, "training.resume=auto")
    output, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "resumed after epoch" in output
    return the_run(home)


def check_same(folder: Path, whole: Path) -> None:
    """All tensors, and all rows in every file, are those of the run that nothing befell."""
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    ours, theirs = (torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (folder, whole))
    assert differences(ours, theirs) == []
    assert repeatable_rows(folder) == repeatable_rows(whole)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    assert all(line["time/epoch_seconds"] > 0 for line in lines)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    for tag in ("train/loss", "val/miou", "lr"):
        points = events.Scalars(tag)
        assert [point.step for point in points] == list(range(1, EPOCHS + 1))
        assert [point.value for point in points] == pytest.approx([line[tag] for line in lines])
    assert [image.step for image in events.Images("panel/0")] == [2, 4, 6]
    assert left_over(folder) == []


def differences(ours: Any, theirs: Any, name: str = "") -> list[str]:
    if isinstance(ours, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [name]
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        return [found for key in ours for found in differences(ours[key], theirs[key], f"{name}.{key}")]
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        return [found for i, pair in enumerate(zip(ours, theirs, strict=True)) for found in differences(*pair, f"{name}.{i}")]
    return [] if ours == theirs or (ours != ours and theirs != theirs) else [name]


def left_over(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


def status(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text())["status"]


def wait_for_checkpoint(folder: Path, epoch: int) -> None:
    """The writer's thread goes on while training is paused; the manifest names a file before it has its name."""
    end = time.monotonic() + 60
    manifest = folder / "checkpoints" / "manifest_copy.json"
    while json.loads(manifest.read_text())["last.pt"]["epoch"] != epoch or left_over(folder):
        assert time.monotonic() < end
        time.sleep(0.05)


# --- a full disk ------------------------------------------------------------------------------------------------------


def fill(process: Process) -> None:
    """No file can be written any more."""
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))


def make_room(process: Process) -> None:
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))


@pytest.mark.slow
@linux
def test_training_goes_on_while_nothing_can_be_written(start: Start, words: list[str], tmp_path: Path, whole: Path) -> None:
    process = start("-c", PAUSED, STEP, f"{2 * STEPS + 1},{4 * STEPS + 1}", *words)  # full in epochs 3 and 4
    said = wait_for(process, "paused")
    fill(process)
    go_on(process)
    said += wait_for(process, "paused")
    folder = the_run(tmp_path)
    assert [row["epoch"] for row in repeatable_rows(folder)] == ["1", "2"]
    make_room(process)
    go_on(process)
    output, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    said += output
    for name in ("metrics.csv", "figures", "run.json"):
        assert f"{folder.relative_to(tmp_path)}/{name}: not written (File too large); the run goes on" in said
    assert "checkpoints/last.pt: not saved" in said
    failed = json.loads((folder / "run.json").read_text())["failed_writes"]
    assert failed == said.count(": not written") + said.count(": not saved") >= 6
    assert f"beware: {failed} writes failed on the way" in output
    assert "Traceback" not in (folder / "train.log").read_text()
    check_same(folder, whole)


@pytest.mark.slow
@linux
def test_a_last_save_that_fails_ends_in_one_line_and_keeps_the_one_before(
    start: Start, words: list[str], tmp_path: Path, whole: Path
) -> None:
    process = start("-c", PAUSED, STEP, f"{5 * STEPS + 1}", *words)
    wait_for(process, "paused")
    folder = the_run(tmp_path)
    wait_for_checkpoint(folder, 5)
    before = {file: file.read_bytes() for file in (folder / "checkpoints").iterdir()}
    fill(process)
    go_on(process)
    line = the_line(process)
    assert line.startswith(f"error: {folder.relative_to(tmp_path)}/checkpoints/last.pt: the end of the run could not be saved")
    assert line.endswith("free some space and go on with training.resume=auto")
    assert {file: file.read_bytes() for file in (folder / "checkpoints").iterdir()} == before
    assert len(repeatable_rows(folder)) == 5
    assert left_over(folder) == []
    check_same(resume(start, words, tmp_path), whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system of a few MiB as `outputs`, or says why the test is skipped."""
    mounted = []

    def mount(*options: str) -> Path:
        folder = tmp_path / "outputs"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join(["size=2m", *options]), "none", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"a file system may not be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path) -> Path:
    file = folder / "somebody else's"
    with file.open("wb", buffering=0) as filler:
        for block in (bytes(4096), b"0"):
            try:
                while True:
                    filler.write(block)
            except OSError:
                pass
    return file


@pytest.mark.slow
def test_a_disk_that_is_full_twice(
    start: Start, words: list[str], tmp_path: Path, whole: Path, small_disk: Callable[..., Path]
) -> None:
    disk = small_disk()
    process = start("-c", PAUSED, STEP, f"{2 * STEPS + 1},{4 * STEPS + 1},{5 * STEPS + 1}", *words)
    wait_for(process, "paused")
    file = fill_disk(disk)
    go_on(process)
    said = wait_for(process, "paused")
    assert "No space left on device" in said
    file.unlink()
    go_on(process)
    wait_for(process, "paused")
    folder = the_run(tmp_path)
    wait_for_checkpoint(folder, 5)
    assert len(repeatable_rows(folder)) == 5
    file = fill_disk(disk)
    go_on(process)
    line, run = the_end(process, tmp_path)  # run.json says so: it has kept some room
    assert "last.pt: the end of the run could not be saved" in line
    assert run["failed_writes"] >= 4
    assert left_over(folder) == []
    file.unlink()
    check_same(resume(start, words, tmp_path), whole)


TORN = """
import resource, sys
from pathlib import Path
from test_recorder import CLASSES, Recorder, check_everywhere, make_record
home, most = Path(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
failed = 0
for room in (0, 1, 30, 77, 150, 300):
    folder = home / str(room)
    for name in ("figures", "tensorboard"):
        (folder / name).mkdir(parents=True)
    recorder = Recorder(folder, CLASSES, 255, 0)
    for epoch in (1, 2):
        recorder.write(make_record(epoch))
    files = [file for file in folder.rglob("*") if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    for file in files:  # each of them may grow by so much
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[file]) + room, most))
        try:
            recorder.write(make_record(len(recorder.rows) + 1))
        except OSError:
            failed += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        for grown in files:
            now = grown.read_bytes()
            assert now.startswith(before[grown])
            assert grown.suffix not in (".csv", ".jsonl") or now.endswith(b"\\n"), (room, now)
    recorder.close()
    check_everywhere(folder, len(recorder.rows))
print(failed)
"""


@pytest.mark.slow
def test_no_row_or_point_is_ever_there_in_part(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", TORN, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 12


# --- folders that cannot be written, or no longer ---------------------------------------------------------------------


@pytest.mark.parametrize("what", ["a file", "a link that leads nowhere"])
def test_outputs_that_is_no_folder(tmp_path: Path, what: str) -> None:
    outputs = tmp_path / "outputs"
    if what == "a file":
        outputs.touch()
    else:
        outputs.symlink_to(tmp_path / "a disk that is not mounted")
    with pytest.raises(WriteError, match=r"outputs/name/.*: cannot be written \(.*\); make room or give access, or use hydra"):
        claim_folder(outputs / "name", "12345678")
    with pytest.raises(WriteError, match=r"outputs/run: cannot be written \(.*\); make room or give access, or use hydra"):
        RunFolder(outputs / "run")


@pytest.mark.slow
def test_a_read_only_folder(start: Start, words: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if os.geteuid():
        (tmp_path / "outputs").mkdir(mode=0o555)
    else:  # root may write whatever the permissions say
        request.getfixturevalue("small_disk")("ro")
    line = the_line(start("-m", "src.train", *words))
    assert line.startswith("error: outputs/attunet_camvid/")
    assert "cannot be written (" in line
    assert "hydra.run.dir=FOLDER" in line


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_taken_away_while_training(start: Start, words: list[str], tmp_path: Path, replaced: bool) -> None:
    process = start("-c", PAUSED, STEP, f"{2 * STEPS + 1}", *words)
    wait_for(process, "paused")
    folder = the_run(tmp_path)
    wait_for_checkpoint(folder, 2)
    shutil.rmtree(folder)
    if replaced:
        folder.mkdir()
    go_on(process)
    assert the_line(process).startswith(f"error: {folder.relative_to(tmp_path)}: was removed or replaced while the run trained")
    assert not replaced or list(folder.iterdir()) == []
    assert folder.exists() == replaced


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "where", "at"),
    [
        pytest.param(signal.SIGTERM, STEP, 8, marks=linux),
        pytest.param(signal.SIGTERM, VALIDATION, 3, marks=pytest.mark.slow),  # two batches an epoch
        pytest.param(signal.SIGTERM, SAVE, 3, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, STEP, 8, marks=[pytest.mark.slow, linux]),
        pytest.param(signal.SIGUSR1, STEP, 8, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, STEP, 8, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_step_saves_and_loses_nothing(
    start: Start, words: list[str], tmp_path: Path, whole: Path, number: signal.Signals, where: str, at: int
) -> None:
    by_slurm = number in (signal.SIGUSR1, signal.SIGUSR2)
    to_all = where == STEP and not by_slurm
    workers = ["loader.num_workers=2"] if to_all else []
    process = start("-c", PAUSED, where, str(at), *words, *workers, start_new_session=True)
    wait_for(process, "paused")
    if to_all:  # as a terminal does to its group, and Slurm, systemd and containers to whatever they started
        assert len(everyone(process.pid)) == 5  # two workers for each split
        for pid in everyone(process.pid):
            os.kill(pid, number)
    else:
        process.send_signal(number)
    go_on(process)
    output, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr.lstrip()) == (128 + number, STOPPING if number == signal.SIGINT else "")
    assert "interrupted and saved; the same command with training.resume=auto goes on from here" in output
    folder = the_run(tmp_path)
    assert status(folder) == "interrupted"
    assert left_over(folder) == []
    if not by_slurm:  # seen three times that nothing is lost
        check_same(resume(start, words, tmp_path), whole)


@pytest.mark.parametrize(("number", "at", "ends"), [(signal.SIGINT, 1, "interrupted"), (signal.SIGTERM, 2, "finished")])
def test_a_signal_after_an_epoch_saves_nothing_twice_and_none_after_the_last(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    at: int,
    ends: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    def be_told(config: Any, experiment: Experiment, recorder: object) -> None:
        if experiment.state.epoch == at:
            for _ in range(2):  # as a terminal and torchrun do
                os.kill(os.getpid(), number)
            assert capfd.readouterr().err == ("\n" + STOPPING if number == signal.SIGINT else "")  # at once

    monkeypatch.setattr(train, "write_pictures", be_told)
    launch, config = prepare("config", [*words, "training.epochs=2", "monitor.tag=train/loss", "monitor.mode=min"])
    with contextlib.nullcontext() if ends == "finished" else pytest.raises(Interrupted):
        train.train(config, launch)
    folder = the_run(tmp_path)
    assert (status(folder), len(repeatable_rows(folder))) == (ends, at)
    last, best = (folder / "checkpoints" / name for name in ("last.pt", "best.pt"))
    assert last.samefile(best)  # the loss falls, so that each epoch is the best one
    assert torch.load(last, weights_only=True)["epoch"] == at


@pytest.mark.slow
def test_more_epochs_keep_their_schedule_though_the_run_was_killed_before_it_saved_any(
    start: Start, words: list[str], tmp_path: Path
) -> None:
    words = [*words, "scheduler=cosine", "optimizer.lr=0.1"]
    process = start("-m", "src.train", *words, "training.epochs=2")
    assert process.wait(timeout=120) == 0
    folder = the_run(tmp_path)
    more = [*words, "training.epochs=4", f"training.resume='{folder}'"]
    process = start("-c", PAUSED, STEP, "1", *more)
    wait_for(process, "paused")
    process.kill()
    process.wait()
    assert json.loads((folder / "run.json").read_text())["config"]["training"]["epochs"] == 4  # not longer any more
    process = start("-m", "src.train", *more)
    assert process.wait(timeout=120) == 0
    rates = [float(row["lr"]) for row in repeatable_rows(folder)]
    assert rates[2:] == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in (2, 3)])


def test_a_signal_while_the_run_is_being_set_up(start: Start, words: list[str], tmp_path: Path) -> None:
    process = start("-c", PAUSED, "src.run_folder.write_json", "1", *words)  # it just said that it is running
    wait_for(process, "paused")
    folder = the_run(tmp_path)
    assert status(folder) == "running"
    process.send_signal(signal.SIGTERM)
    go_on(process)
    output, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (128 + signal.SIGTERM, "")
    assert "interrupted and saved" in output
    assert status(folder) == "interrupted"
    assert torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["step"] == 1


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_on_the_console_and_in_the_log(
    start: Start, words: list[str], tmp_path: Path, whole: Path
) -> None:
    process = start("-c", PAUSED, STEP, f"{3 * STEPS + 1}", *words)
    wait_for(process, "paused")
    folder = the_run(tmp_path)
    wait_for_checkpoint(folder, 3)
    process.kill()
    process.wait()
    (folder / "checkpoints" / "last.pt").write_bytes(b"damaged")
    process = start("-m", "src.train", *words, "training.resume=auto")
    output, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "resumed after epoch 2" in output
    (line,) = stderr.splitlines()
    assert "last.pt: damaged" in line
    assert line in (folder / "train.log").read_text()
    check_same(folder, whole)


@pytest.mark.parametrize(
    ("before", "number", "code"),
    [
        ([], signal.SIGTERM, -signal.SIGTERM),
        pytest.param([], signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param([signal.SIGINT], signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_second_signal_ends_a_save_that_hangs(
    start: Start, words: list[str], tmp_path: Path, before: list[signal.Signals], number: signal.Signals, code: int
) -> None:
    process = start("-c", PAUSED, SAVE, "3", *words)
    wait_for(process, "paused")
    for sent in [*before, number]:
        process.send_signal(sent)
        time.sleep(1.5)  # sooner it is the same wish, handed on twice
    assert process.poll() is None
    process.send_signal(number)
    process.wait(timeout=20)
    assert process.returncode == code
    folder = the_run(tmp_path)
    assert status(folder) == ("interrupted" if code == 130 else "running")
    assert len(left_over(folder)) == 1
    mark_dead_runs(folder.parent)  # as the next start does
    Checkpoints(folder / "checkpoints", None, 1)
    assert status(folder) == ("interrupted" if code == 130 else "failed")
    assert left_over(folder) == []


@pytest.mark.slow
def test_only_the_same_signal_again_ends_a_save(start: Start, words: list[str], tmp_path: Path) -> None:
    process = start("-c", PAUSED, SAVE, "3", *words)
    wait_for(process, "paused")
    process.send_signal(signal.SIGUSR2)  # as Slurm warns
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)  # as it says that it means it
    process.send_signal(signal.SIGUSR1)
    time.sleep(1.2)
    process.send_signal(signal.SIGTERM)  # as submitit hands it on
    go_on(process)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (128 + signal.SIGUSR2, "")
    folder = the_run(tmp_path)
    assert (status(folder), left_over(folder)) == ("interrupted", [])


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_clock_that_jumps_back_changes_nothing(start: Start, words: list[str], tmp_path: Path, whole: Path) -> None:
    process = start("-c", CLOCK, "0", *words)  # to yesterday, after the second epoch
    output, stderr = process.communicate(timeout=120)
    assert process.returncode == 143, stderr + output
    folder = the_run(tmp_path)
    run = json.loads((folder / "run.json").read_text())
    assert run["end"] < run["start"]
    assert resume(start, words, tmp_path, "-c", CLOCK, "86400") == folder
    assert len(list((folder / "tensorboard").iterdir())) == 2
    check_same(folder, whole)
    values = [float(value) for line in repeatable_rows(folder) for value in line.values() if value]
    assert all(math.isfinite(value) for value in values)
