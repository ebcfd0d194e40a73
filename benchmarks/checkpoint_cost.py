"""What saving costs: AttU_Net's 57 million weights (229 MB) saved every epoch of about a minute, against never saving.

    python -m benchmarks.checkpoint_cost [optimizer=adam]

Epochs with and without a save take turns in one process, on small images. A save is what a new best epoch writes: best.pt,
which is last.pt too; best.safetensors comes once, at the end of a run. Exit code 1 if the median epoch with one is more than
5 % slower, or if a save holds training up for more than a tenth of the time that it takes to write.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.build import Experiment, build
from src.checkpoint import Checkpoints
from src.cli import prepare
from src.config import Config
from src.loop import StepRecord, fit
from src.restore import load_last

BATCH = 4
SIZE = 32
MOST_COST, MOST_HELD_UP = 0.05, 0.1
FOREVER = 10**6


@dataclass(frozen=True)
class Epoch:
    """What one epoch took, in seconds; `held_up` is the part in which the copy was taken that is written beside it."""

    seconds: float
    longest_step: float
    held_up: float


def compose(root: Path, num_images: int, words: list[str]) -> Config:
    """The full network on so many small images."""
    keys = [
        "dataset=streets",
        f"dataset.root={root}",
        f"dataset.num_train={num_images}",
        "dataset.num_val=2",
        "dataset.num_test=1",
    ]
    keys += [f"dataset.render_size=[{SIZE},{SIZE}]", f"loader.batch_size={BATCH}", f"training.epochs={FOREVER}"]
    return prepare("config", [*keys, "precision=fp32", "optimizer=sgd", *words])[1]


def timed_steps(experiment: Experiment, config: Config) -> Iterator[tuple[float, bool]]:
    """Seconds of each step, endlessly, and whether it was an epoch's last; validation is left out."""
    since = time.perf_counter()
    for record in fit(experiment.state, experiment.setup, lambda _: False, 10, config.monitor):
        if isinstance(record, StepRecord):
            seconds = time.perf_counter() - since
            yield seconds, record.step == record.num_steps
        since = time.perf_counter()


def measure_epoch(steps: Iterator[tuple[float, bool]], checkpoints: Checkpoints | None, experiment: Experiment) -> Epoch:
    """One epoch; with `checkpoints`, what was reached before it is saved beside it."""
    begin = time.perf_counter()
    if checkpoints is not None:
        checkpoints.save_epoch(experiment.state, is_best=True)
    held_up = time.perf_counter() - begin
    seconds = []
    for step, is_last in steps:
        seconds.append(step)
        if is_last:
            break
    total = sum(seconds) + held_up
    if checkpoints is not None:
        checkpoints.wait()
        assert checkpoints.failures == 0
    return Epoch(total, max(seconds), held_up)


def measure_write(checkpoints: Checkpoints, experiment: Experiment) -> float:
    """Seconds until a save lies on the disk, with nothing beside it."""
    begin = time.perf_counter()
    checkpoints.save_epoch(experiment.state, is_best=True)
    checkpoints.wait()
    return time.perf_counter() - begin


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of an epoch (60)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs with and epochs without a save (5)")
    given, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "checkpoints"
        folder.mkdir()
        trial = compose(Path(home) / "trial", 4 * BATCH, words)
        steps = timed_steps(build(trial), trial)
        step = statistics.median([next(steps)[0] for _ in range(40)][20:])  # the first are slower
        config = compose(Path(home) / "data", BATCH * max(math.ceil(given.seconds / step), 2), words)
        experiment = build(config)
        checkpoints = Checkpoints(folder, None, 1)
        steps = timed_steps(experiment, config)
        measure_epoch(steps, None, experiment)  # warm
        written = measure_write(checkpoints, experiment)
        size = (folder / "last.pt").stat().st_size / 1e6
        pairs = []
        for number in range(given.rounds):
            order = (None, checkpoints) if number % 2 else (checkpoints, None)
            epochs = {which is None: measure_epoch(steps, which, experiment) for which in order}
            pairs.append((epochs[True], epochs[False]))
            print(f"epoch without {pairs[-1][0].seconds:.1f} s, with a save {pairs[-1][1].seconds:.1f} s", flush=True)
        begin = time.perf_counter()
        again = build(config)
        built = time.perf_counter() - begin
        load_last(folder, again.state)
        loaded = time.perf_counter() - begin - built
    cost = statistics.median(with_save.seconds / without.seconds for without, with_save in pairs) - 1
    held_up = statistics.median(with_save.held_up for _, with_save in pairs)
    longest, longest_beside = (max(pair[which].longest_step for pair in pairs) for which in (0, 1))
    print(
        f"{config.optimizer['_target_']}: a save of {size:.0f} MB takes {written:.1f} s alone, holds training up {held_up:.2f} s"
    )
    print(f"longest step: {longest:.2f} s without a save, {longest_beside:.2f} s beside one")
    print(f"a resumed run is built in {built:.1f} s and loaded in {loaded:.1f} s")
    print(f"cost of saving every epoch: {cost:.1%} (median of {given.rounds} pairs; at most {MOST_COST:.0%})")
    sys.exit(0 if cost <= MOST_COST and held_up <= MOST_HELD_UP * written else 1)


if __name__ == "__main__":
    main()
