"""What a sweep will cost, told before it begins: parameters, multiplications, time and disk."""

import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from src.build import build, build_part, check, checked_datasets
from src.config import Config
from src.device import choose_compute
from src.errors import ConfigError
from src.models.cost import count_gmacs
from src.run_folder import short_hash
from src.step import train_step
from src.studies.devices import ALLOWED, BusyError, take_device
from src.studies.progress import in_words

LONG_STEP = 1.0  # seconds; a batch whose step takes longer is scaled up, not made larger
MOST_SECONDS = 20.0  # of measuring; networks that come later are judged by their multiplications
SAVED_STATES = 4  # last and best, and the one before of each; fewer where best is last
SAVED_WEIGHTS = 1  # best.safetensors
PROBE = 1000  # numbers in a parameter that tells how much an optimizer keeps for each


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


@dataclass(frozen=True)
class Size:
    """Of a network: parameters, GMACs an image, bytes of its weights, and of all that going on needs, where known."""

    parameters: int
    gmacs: float | None
    weights: int
    state: int | None


def make_plan(configs: Sequence[Config], start: float) -> list[Cost]:
    """What each job costs. Sizes are those of the networks' shapes, times those of a few steps here and now.

    Nothing is written, and no memory of a GPU stays taken.

    Args:
        configs: Of the jobs.
        start: Seconds until a job trains: imports, its configuration, data.
    """
    keys = [short_hash(_what_costs(config)) for config in configs]
    sizes: dict[str, Size] = {}
    paces: dict[str, float | None] = {}  # seconds of training an image
    end = time.monotonic() + MOST_SECONDS
    with _measuring({config.device for config in configs}) as measure:
        for key, config in zip(keys, configs, strict=True):
            if key not in sizes:
                sizes[key] = measure_size(config)
                is_late = time.monotonic() > end
                paces[key] = (_judge(sizes[key], sizes, paces) if is_late else None) or measure(config)
    return [_cost(config, sizes[key], paces[key], start) for key, config in zip(keys, configs, strict=True)]


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


def measure_size(config: Config) -> Size:
    """From shapes alone: nothing is computed."""
    model = check(config)
    height, width = checked_datasets(config)[1][0][1].shape  # as validation sees it
    parameters = sum(p.numel() for p in model.parameters())
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    each = _or_told("optimizer", lambda: bytes_for_each(config))  # which may not like the CPU
    state = None if each is None else weights + round(parameters * each)
    return Size(parameters, count_gmacs(model, (height, width)), weights, state)


def bytes_for_each(config: Config) -> float:
    """That the optimizer keeps for each parameter: momenta and the like."""
    probe = nn.Parameter(torch.zeros(PROBE))
    optimizer = build_part("optimizer", config.optimizer, params=[probe])
    probe.grad = torch.zeros(PROBE)
    optimizer.step()
    held = [t for t in optimizer.state[probe].values() if isinstance(t, torch.Tensor) and t.numel() == PROBE]
    return sum(t.numel() * t.element_size() for t in held) / PROBE


def images_seen(config: Config) -> float:
    """Of a whole job; one that is only validated counts a third, as it has no backward pass."""
    train, val = (len(split) for split in checked_datasets(config))
    left_out = train % config.loader.batch_size if config.loader.drop_last else 0
    return config.training.epochs * (train - left_out + val / 3)


@contextmanager
def _measuring(devices: set[str]) -> Iterator[Callable[[Config], float | None]]:
    """How times are measured: on a GPU in a process of its own, whose end gives the memory back."""
    if all(choose_compute(device, "auto").device.type == "cpu" for device in devices):
        yield lambda config: _or_told("time", lambda: seconds_an_image(config))
        return
    with ExitStack() as stack:
        pools: dict[str, ProcessPoolExecutor] = {}

        def measure(config: Config) -> float:
            if config.device not in pools:
                options = stack.enter_context(take_device(config.device, wait=False))
                spawn, seen = multiprocessing.get_context("spawn"), options["env"].get(ALLOWED)
                pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_see, initargs=(seen,))
                pools[config.device] = stack.enter_context(pool)
            return pools[config.device].submit(seconds_an_image, config).result()

        yield lambda config: _or_told("time", lambda: measure(config))


def _see(devices: str | None) -> None:
    """Before CUDA begins in this process: the GPUs that it may use."""
    if devices is not None:
        os.environ[ALLOWED] = devices


def _or_told(what: str, measure: Callable[[], float]) -> float | None:
    try:
        return measure()
    except BusyError as error:
        print(f"{what} not measured, as {error}", file=sys.stderr, flush=True)
    except Exception as error:  # whatever a network or an optimizer may raise; its own run will say it again, at length
        first_line = (str(error).strip().splitlines() or [""])[0]
        print(f"{what} not measured ({type(error).__name__}: {first_line})", file=sys.stderr, flush=True)
    return None


def seconds_an_image(config: Config) -> float:
    """Of training: from a step of the largest batch, up to that of the configuration, whose step is not long."""
    threads = torch.get_num_threads()
    try:
        experiment = build(config, checked_datasets(config))
        state, setup, data = experiment.state, experiment.setup, experiment.train_data
        state.model.train()

        def step(size: int) -> float:
            begin = time.perf_counter()
            images, masks = data.batch([(0, number % len(data)) for number in range(size)])
            if not data.samples.are_kept and config.dataset.get("cache") != "none":
                begin = time.perf_counter()  # a job decodes its images once, not for each step
            train_step(state, setup, setup.normalize(images), masks.to(setup.compute.device))
            state.totals.loss.item()  # waits for the device
            return time.perf_counter() - begin

        size = min(2, config.loader.batch_size)  # BatchNorm may need two
        while True:
            seconds = step(size)
            if seconds < LONG_STEP:  # the first of its size also prepares the next ones
                seconds = step(size)
            if size == config.loader.batch_size or seconds > LONG_STEP:
                return seconds / size
            size = min(4 * size, config.loader.batch_size)
    finally:
        torch.set_num_threads(threads)


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
