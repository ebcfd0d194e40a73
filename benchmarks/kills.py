"""Kills real training runs, resumes each one, and compares its final files with those of an uninterrupted run.

    python -m benchmarks.kills --kills 100

Half of the kills come at a random moment from outside, half at a named point of a save or of validation (`killed_run.POINTS`).
The runs take turns: one process with two loader workers that saves whenever its writer is free; the same where every epoch is
kept and the disk is slower than an epoch; and two ranks, of which the first one is killed, always at a named point. Exit code 1
unless all end with the same tensors, rows and events.
"""

import argparse
import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.killed_run import POINTS, VALIDATION

ROOT = Path(__file__).parent.parent
EPOCHS = 4
TIMED = re.compile(r"^(time|speed|memory)/")  # columns that no two runs share
IN_EPOCH = {"train_epoch", "train_step", "save_if_due", "step"}  # functions of the main thread while an epoch is under way
LIMIT = 600.0  # seconds for one process


@dataclass(frozen=True)
class Way:
    """How a run is made: its further words, how many ranks, and the seconds that each file of a checkpoint takes longer."""

    words: tuple[str, ...] = ()
    ranks: int = 1
    slow: float = 0.0


WAYS = {
    "plain": Way(),
    "slow writes": Way(("training.checkpoint_every=1",), slow=2.0),
    "two ranks": Way(("loader.num_workers=0",), ranks=2),
}


@dataclass(frozen=True)
class Kill:
    """What became of one run.

    Attributes:
        number: Of the trial, as `way` is of WAYS.
        kind: `random`, or the named point.
        epoch: Under way, counted from 1.
        main: Where the main thread stood, `file:line function`.
        writer: Where the checkpoint writer stood; empty: it wrote nothing.
        in_epoch: Whether it was between an epoch's first step and its last.
        in_save: Whether a save was being written.
        resumed: What the next process said it goes on from.
        identical: Whether the end is that of the undisturbed run.
    """

    number: int
    way: str
    kind: str
    epoch: int
    main: str
    writer: str
    in_epoch: bool
    in_save: bool
    resumed: str
    identical: bool


def words(data: Path) -> list[str]:
    """The run: small, but with everything that carries state."""
    keys = ["name=killed", "dataset=streets", f"dataset.root={data}", "dataset.num_train=48", "dataset.num_val=8"]
    keys += ["dataset.num_test=1", "dataset.render_size=[48,64]", "model.channels=[8,16,32]", "loader.batch_size=4"]
    keys += ["loader.num_workers=2", "augmentation=crop", "dataset.image_size=[40,48]", "optimizer=adamw", "scheduler=cosine"]
    keys += [f"training.epochs={EPOCHS}", "training.checkpoint_seconds=0.01", "training.checkpoint_every=2"]
    return [*keys, "training.log_every=1", "device=cpu", "threads=1", "training.panel_images=2"]


def start(home: Path, *command: str, ranks: int = 1) -> subprocess.Popen[str]:
    """A process of ours, working in `home`, or torchrun with so many."""
    if ranks > 1:
        command = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *command)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (home / "console.txt").open("a") as console:
        return subprocess.Popen([sys.executable, *command], cwd=home, env=environment, stdout=console, stderr=console, text=True)


def train_to_the_end(home: Path, *more: str, way: Way = WAYS["plain"]) -> Path:
    """Trains without a disturbance; the finished run's folder."""
    process = start(home, "-m", "src.train", *words(home.parent / "data"), *way.words, *more, ranks=way.ranks)
    try:
        code = process.wait(LIMIT)
    finally:
        process.kill()
    if code:
        raise RuntimeError(f"exit code {code}: {(home / 'console.txt').read_text()[-2000:]}")
    return max(home.glob("outputs/killed/*"))


def kill_one(number: int, name: str, seed: int, home: Path, seconds: float, reference: dict[str, Any]) -> Kill:
    """Starts a run, kills it, resumes it until it finishes, and compares the result."""
    chance, way = random.Random(f"{seed} {number}"), WAYS[name]
    names = [*POINTS, VALIDATION]
    kind = "random" if number % 2 == 0 and way.ranks == 1 else names[number // 2 % len(names)]
    home.mkdir()
    trace = home / "trace.txt"
    occurrence = chance.randint(1, 3 if way.slow else 8) if kind != "random" else 1
    while True:
        command = ["-m", "benchmarks.killed_run", str(trace), "never" if kind == "random" else kind, str(occurrence)]
        shutil.rmtree(home / "outputs", ignore_errors=True)  # of an attempt that ended before its kill
        (home / "console.txt").unlink(missing_ok=True)
        process = start(home, *command, str(way.slow), *words(home.parent / "data"), *way.words, ranks=way.ranks)
        try:
            if kind == "random":
                kill_at_random(process, home, trace, chance.uniform(0, seconds))
            code = process.wait(LIMIT)
        finally:
            process.kill()
        if code == -signal.SIGKILL or (kind == "random" and code == -signal.SIGSEGV):
            break  # to look at the stacks of running threads may crash the process, which is as sudden a death
        if way.ranks > 1 and code and trace.read_text():  # torchrun has its own code for it
            break
        if code:
            raise RuntimeError(f"exit code {code}: {(home / 'console.txt').read_text()[-2000:]}")
        occurrence, seconds = max(occurrence // 2, 1), seconds / 2  # it had ended before
    epoch, main, writer, in_epoch = where(home, trace)
    (home / "console.txt").write_text("")
    folder = train_to_the_end(home, "training.resume=auto", way=way)
    resumed = re.search(r"\(resumed (.*?)\)", (home / "console.txt").read_text())
    said = resumed[1] if resumed else "nothing saved yet: anew"
    return Kill(number, name, kind, epoch, main, writer, in_epoch, bool(writer), said, outcome(folder) == reference)


def kill_at_random(process: subprocess.Popen[str], home: Path, trace: Path, seconds: float) -> None:
    """SIGKILL from outside, some time after training has begun; just before it the process says where it stands."""
    while process.poll() is None and "watch it" not in (home / "console.txt").read_text():
        time.sleep(0.01)
    time.sleep(seconds)
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGQUIT)
    end = time.monotonic() + 1
    while time.monotonic() < end and not trace.read_text().endswith("\n"):
        time.sleep(0.001)
    process.kill()


def where(home: Path, trace: Path) -> tuple[int, str, str, bool]:
    """Epoch, place of the main thread, place of the writer, and whether an epoch was under way."""
    stacks = [re.findall(r'File "([^"]+)", line (\d+) in (\S+)', part) for part in trace.read_text().split("\n\n")]
    main = next((stack for stack in stacks if any(function == "lead" for _, _, function in stack)), [])
    writer = next((stack for stack in stacks if any(function == "_save" for _, _, function in stack)), [])
    rows = [max(len(file.read_text().splitlines()) - 1, 0) for file in home.glob("outputs/killed/*/metrics.csv")]
    in_epoch = bool(IN_EPOCH & {function for _, _, function in main})
    return max(rows, default=0) + 1, place(main), place(writer), in_epoch


def place(stack: list[tuple[str, str, str]]) -> str:
    """The innermost function of ours, `loop.py:101 train_epoch`."""
    ours = [frame for frame in stack if f"{ROOT}/src/" in frame[0]]
    return f"{Path(ours[0][0]).name}:{ours[0][1]} {ours[0][2]}" if ours else ""


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run ends with and that must not depend on what happened to it, comparable by ==."""
    files = sorted(file.name for file in (folder / "checkpoints").glob("*.pt") if "previous" not in file.name)
    found: dict[str, Any] = {
        name: plain(torch.load(folder / "checkpoints" / name, map_location="cpu", weights_only=True)) for name in files
    }
    found["best.safetensors"] = (folder / "checkpoints" / "best.safetensors").read_bytes()
    with (folder / "metrics.csv").open() as file:
        found["metrics.csv"] = [{k: v for k, v in row.items() if not TIMED.match(k)} for row in csv.DictReader(file)]
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        found[tag] = [event.step if TIMED.match(tag) else (event.step, event.value) for event in events.Scalars(tag)]
    return found


def plain(value: Any) -> Any:
    """The same with each tensor as its type, shape and bytes, which compare by ==."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else repr(value)


def run_trials(kills: int, seed: int, parallel: int, home: Path, ways: Sequence[str] = tuple(WAYS)) -> list[Kill]:
    """The undisturbed run of each way, then all others, each told as it ends."""
    undisturbed = {}
    for name in ways:
        (home / f"undisturbed {name}").mkdir(parents=True)
        folder = train_to_the_end(home / f"undisturbed {name}", way=WAYS[name])
        with (folder / "metrics.csv").open() as file:
            seconds = sum(float(row["time/epoch_seconds"]) for row in csv.DictReader(file)) * 1.2  # pictures and saves on top
        undisturbed[name] = (seconds, outcome(folder))
    done = []
    with ThreadPoolExecutor(parallel) as pool:
        turns = [(n, ways[n // 2 % len(ways)]) for n in range(kills)]
        jobs = [pool.submit(kill_one, n, name, seed, home / f"{n:03d}", *undisturbed[name]) for n, name in turns]
        for job in jobs:
            done.append(job.result())
            print("  ".join(str(value) for value in astuple(done[-1])), flush=True)
    return done


def summary(kills: list[Kill]) -> str:
    """One line over all of them."""
    same, epoch, save = (sum(getattr(k, name) for k in kills) for name in ("identical", "in_epoch", "in_save"))
    validation = sum(kill.kind == VALIDATION for kill in kills)
    return f"{same} of {len(kills)} identical; {epoch} landed in mid-epoch, {save} inside a save, {validation} in validation"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="how many runs are killed (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and points (0)")
    parser.add_argument("--parallel", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--way", choices=list(WAYS), help="the kind of run (they take turns)")
    parser.add_argument("--csv", type=Path, help="where the table is written too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        kills = run_trials(given.kills, given.seed, given.parallel, Path(home), (given.way,) if given.way else tuple(WAYS))
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Kill)])
            writer.writerows(astuple(kill) for kill in kills)
    print(summary(kills))
    sys.exit(0 if all(kill.identical for kill in kills) else 1)


if __name__ == "__main__":
    main()
