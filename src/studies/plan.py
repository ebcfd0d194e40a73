"""What a sweep will cost, told before it begins: parameters, multiplications, time and disk."""

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from src.config import Config
from src.errors import ConfigError
from src.run_folder import short_hash
from src.studies.measuring import Size, images_seen, measure_size, measuring
from src.studies.progress import in_words

MOST_SECONDS = 20.0  # of measuring; networks that come later are judged by their multiplications
SAVED_STATES = 4  # last and best, and the one before of each; fewer where best is last
SAVED_WEIGHTS = 1  # best.safetensors


@dataclass(frozen=True)
class Cost:
    """Of one job.

    Attributes:
        parameters: Of the network.
        gmacs: Billions of multiply-adds for one image; None where they cannot be counted.
        seconds: In all; None where they could not be measured.
        bytes: Of its checkpoints, at most; None where it could not be measured what its optimizer keeps.
    """

    parameters: int
    gmacs: float | None
    seconds: float | None
    bytes: int | None


def make_plan(configs: Sequence[Config], start: float, threads: int | None = None) -> list[Cost]:
    """What each job costs. Sizes are those of the networks' shapes, times those of a few steps here and now.

    Nothing is written, and no memory of a GPU stays taken.

    Args:
        configs: Of the jobs.
        start: Seconds until a job trains: imports, its configuration, data.
        threads: Of a job whose configuration says nothing of them; None: all.
    """
    configs = [config if config.threads else replace(config, threads=threads) for config in configs]
    keys = [short_hash(_what_costs(config)) for config in configs]
    sizes: dict[str, Size] = {}
    paces: dict[str, float | None] = {}  # seconds of training an image
    end = time.monotonic() + MOST_SECONDS
    with measuring({config.device for config in configs}) as measure:
        for key, config in zip(keys, configs, strict=True):
            if key not in sizes:
                sizes[key] = measure_size(config)
                is_late = time.monotonic() > end
                paces[key] = (_judge(sizes[key], sizes, paces) if is_late else None) or measure(config)
    return [_cost(config, sizes[key], paces[key], start) for key, config in zip(keys, configs, strict=True)]


def threads_of_each(launcher: Mapping[str, Any]) -> int | None:
    """That joblib, as Hydra's launcher, leaves to each of the jobs which it runs at once; None where each has all of them."""
    at_once = launcher.get("n_jobs")
    if not at_once or "joblib" not in launcher["_target_"] or "OMP_NUM_THREADS" in os.environ:
        return None
    from joblib import cpu_count, effective_n_jobs

    return max(cpu_count() // effective_n_jobs(at_once), 1)


def _judge(size: Size, sizes: dict[str, Size], paces: dict[str, float | None]) -> float | None:
    """The pace of a network as fast for each multiplication as those measured; None where that cannot be said."""
    known = [(pace, gmacs) for key, pace in paces.items() if pace and (gmacs := sizes[key].gmacs)]
    if not size.gmacs or not known:
        return None
    return size.gmacs * sum(pace for pace, _ in known) / sum(gmacs for _, gmacs in known)


def _cost(config: Config, size: Size, pace: float | None, start: float) -> Cost:
    training = config.training
    kept = min(training.checkpoint_keep, training.epochs // training.checkpoint_every) if training.checkpoint_every else 0
    seconds = None if pace is None else start + pace * images_seen(config)
    saved = None if size.state is None else SAVED_STATES * size.state + (SAVED_WEIGHTS + kept) * size.weights
    return Cost(size.parameters, size.gmacs, seconds, saved)


def tell_plan(names: Sequence[str], costs: Sequence[Cost]) -> str:
    """One line a job, then the sums."""
    if not costs:
        return "no job is left to train"
    lines = []
    for name, cost in zip(names, costs, strict=True):
        seconds = "-" if cost.seconds is None else in_words(cost.seconds)
        gmacs = "?" if cost.gmacs is None else f"{cost.gmacs:.3f}"
        lines.append(f"  {cost.parameters:>12,} parameters  {gmacs:>9} GMACs  {seconds:>8}  {name}")
    told = in_all(costs) or "time not known"
    sizes = [cost.bytes for cost in costs if cost.bytes is not None]
    size = f"of {math.ceil(sum(sizes) / 2**20):,} MiB at most" if len(sizes) == len(costs) else "of a size not known"
    return "\n".join([*lines, f"{len(costs)} jobs, {told}, checkpoints {size}"])


def check_budget(hours: float | None, costs: Sequence[Cost]) -> None:
    """Raises ConfigError if the jobs, one after another, take longer than the study's budget; says so where no time is known."""
    told = in_all(costs)
    if hours is None or not costs:
        return
    if told is None:
        print(f"study.budget.hours={hours:g} was not checked, as no job's time is known", file=sys.stderr, flush=True)
        return
    total = sum(cost.seconds for cost in costs if cost.seconds is not None)
    if total > hours * 3600:
        advice = f"list fewer values, shorten training.epochs, or give study.budget.hours={math.ceil(total / 3600)}"
        raise ConfigError(f"the plan takes {told}, study.budget.hours is {hours:g}; {advice}")


def in_all(costs: Sequence[Cost]) -> str | None:
    """The time of all jobs in words, and of how many it is not known; None where it is of none."""
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    more = f", and {len(costs) - len(known)} jobs of unknown time" if len(known) < len(costs) else ""
    return f"{in_words(sum(known))} one after another{more}" if known else None


def _what_costs(config: Config) -> list[object]:
    """What the cost of a step depends on: not the seed, nor how weights are drawn or how far they are moved."""
    model = {key: value for key, value in config.model.items() if key not in ("init", "init_gain", "weights")}
    optimizer = {key: value for key, value in config.optimizer.items() if key != "lr"}
    parts = [config.dataset, config.augmentation, config.loss, vars(config.loader)]
    return [
        model,
        optimizer,
        *parts,
        config.device,
        config.precision,
        config.threads,
        config.deterministic,
        config.training.sync_batchnorm,
    ]
