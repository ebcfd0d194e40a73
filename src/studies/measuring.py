"""What one job costs, measured: shapes, what its optimizer keeps, and the seconds of a few steps here and now."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from src.build import build, build_part, check, checked_datasets
from src.config import Config
from src.device import choose_compute
from src.models.cost import count_gmacs
from src.step import train_step
from src.studies.devices import ALLOWED, BusyError, take_device

LONG_STEP = 1.0  # seconds; a batch whose step takes longer is scaled up, not made larger
PROBE = 1000  # numbers in a parameter that tells how much an optimizer keeps for each


@dataclass(frozen=True)
class Size:
    """Of a network: parameters, GMACs an image, bytes of its weights, and of all that going on needs, where known."""

    parameters: int
    gmacs: float | None
    weights: int
    state: int | None


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
def measuring(devices: set[str]) -> Iterator[Callable[[Config], float | None]]:
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
