"""One batch through everything that YAML names, before a run's folder is made: what would fail in mid-run fails here."""

import contextlib
import copy
import json
import logging
import random
import warnings
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.config import Config
from src.datasets.reader import SegmentationDataset
from src.device import choose_compute
from src.errors import ConfigError
from src.loss_rehearsal import LOSS_TAKES, compute_loss, rehearse_loss
from src.parts import NoMemoryError, blaming, build_model, build_part
from src.schedules import replay_schedule
from src.setup import Setup

LOGGER = logging.getLogger("src")
MOST_EPOCHS = 10_000  # that a schedule is tried for, which takes a second
MOST_IMAGES = 2  # BatchNorm may need two, and more would show nothing else


def rehearse(
    config: Config,
    model: nn.Module,
    optimizer: Optimizer,
    setup: Setup,
    train_data: SegmentationDataset,
    val_data: SegmentationDataset,
) -> None:
    """Puts one augmented batch through forward, loss, backward, optimizer step and validation.

    No other rank is spoken to, and the random state is left as it was. Where memory is short this ends without a word: training
    says it, with a batch that fits. A network that pads (`size_multiple`) sees a corner of the images.

    Args:
        config: What is rehearsed.
        model: A copy; its weights change. On `meta` only its shapes are tried, without the loss.
        optimizer: Of the copy's weights, or of any others that have a gradient.
        setup: Its loss and loaders; unchanged.
        train_data: Where the batch comes from.
        val_data: Where one validation image comes from.

    Raises:
        ConfigError: If anything fails; the message names group, target and reason.
        DataError: If an image cannot be read.
    """
    with leaving_random_state(setup.compute.device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself will give them
        void = sum(int(data.class_pixels[setup.ignore_index]) for data in (train_data, val_data))
        rehearse_loss(config, setup, has_void=void > 0)
        with contextlib.suppress(NoMemoryError):
            _rehearse_step(config, model, optimizer, setup, *_draw_batch(config, setup, train_data, model))
            with blaming("dataset", config.dataset):
                images, masks = val_data.batch([0])
            _rehearse_validation(config, model, setup, *_corner(model, images, masks))


def rehearse_on_a_copy(config: Config, setup: Setup, train_data: SegmentationDataset, val_data: SegmentationDataset) -> nn.Module:
    """See `rehearse`, on a network of its own, which is returned."""
    device = setup.compute.device
    with leaving_random_state(device):
        model = build_model(config, setup.num_classes)
        with contextlib.suppress(NoMemoryError):
            with blaming("model", config.model):
                model.to(device)
            optimizer = build_part("optimizer", config.optimizer, params=list(model.parameters()))
            rehearse(config, model, optimizer, setup, train_data, val_data)
    return model


def identify_rehearsal(config: Config) -> str:
    """What two configurations share if the rehearsal of one tells all of the other."""
    groups = (config.model, config.dataset, config.augmentation, config.loss, config.optimizer, config.scheduler)
    return json.dumps([groups, config.training.epochs, asdict(config.loader), asdict(config.monitor), config.device])


def rehearse_schedule(config: Config, scheduler: LRScheduler) -> None:
    """Steps a throwaway optimizer once and its schedule over all epochs; raises ConfigError if one of them fails."""
    for weight in (weight for group in scheduler.optimizer.param_groups for weight in group["params"]):
        weight.grad = torch.zeros_like(weight)
    with blaming("optimizer", config.optimizer):
        scheduler.optimizer.step()
    with blaming("scheduler", config.scheduler):
        replay_schedule(scheduler, min(config.training.epochs, MOST_EPOCHS))


@contextlib.contextmanager
def leaving_random_state(device: torch.device) -> Iterator[None]:
    """Afterwards Python, NumPy and torch go on from the random state that they had before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _draw_batch(config: Config, setup: Setup, data: SegmentationDataset, model: nn.Module) -> tuple[Tensor, Tensor]:
    """The first batch of the first epoch, augmented; of it what the network is to see."""
    keys = next(iter(setup.train_loader.sampler))
    with blaming("dataset", config.dataset):
        data.plain(keys[0][1])
    with blaming("augmentation", config.augmentation):
        images, masks = data.batch(keys)
    last = len(data) % config.loader.batch_size
    smallest = last if last and not config.loader.drop_last else config.loader.batch_size
    num_images = min(max(1, smallest // setup.ranks.size), MOST_IMAGES)
    return _corner(model, images[:num_images], masks[:num_images])


def _corner(model: nn.Module, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """So much of the images as the network's deepest level needs for two values a side; all, if it does not say."""
    if not hasattr(model, "size_multiple"):
        return images, masks
    side = 2 * int(model.size_multiple)  # type: ignore[arg-type]
    return images[:, :side, :side].contiguous(), masks[:, :side, :side].contiguous()


def _rehearse_step(config: Config, model: nn.Module, optimizer: Optimizer, setup: Setup, images: Tensor, masks: Tensor) -> None:
    logits = _run(config, model.train(), setup, images)
    if logits.device.type == "meta":
        loss = logits.float().sum()
    else:
        _warn_of_softmax(config, logits)
        with blaming("loss", config.loss, LOSS_TAKES):
            loss = compute_loss(copy.deepcopy(setup.loss), logits, masks.to(logits.device))
    with blaming("model", config.model):
        loss.backward()
    if choose_compute(config.device, config.precision).device.type == setup.compute.device.type:  # a sweep checks on the CPU
        with blaming("optimizer", config.optimizer):
            optimizer.step()


@torch.no_grad()
def _rehearse_validation(config: Config, model: nn.Module, setup: Setup, images: Tensor, masks: Tensor) -> None:
    logits = _run(config, model.eval(), setup, images)
    if logits.device.type != "meta":
        with blaming("loss", config.loss, LOSS_TAKES):
            compute_loss(copy.deepcopy(setup.loss), logits, masks.to(logits.device))


def _run(config: Config, model: nn.Module, setup: Setup, images: Tensor) -> Tensor:
    """The logits; raises ConfigError unless they are a class score for each pixel."""
    batch, height, width, _ = images.shape
    shown = f"{batch} image{'s' if batch > 1 else ''} of {height}x{width}"
    with blaming("model", config.model):
        device = torch.device("meta") if any(p.is_meta for p in model.parameters()) else setup.compute.device
        try:
            with setup.compute.autocast():
                logits = model(setup.normalize(images).to(device))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"model={config.model['_target_']}: a batch of {shown} leaves BatchNorm a single value; use larger images or"
                " batches, fewer levels in model.channels, or loader.drop_last=true"
            ) from error
        wanted = [batch, setup.num_classes, height, width]
        given = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        if given != wanted:
            raise ValueError(f"gives {given} for {shown}; needed is a tensor of logits {wanted}: batch, classes, height, width")
    return logits


def _warn_of_softmax(config: Config, logits: Tensor) -> None:
    sums = logits.detach().float().sum(dim=1)
    if torch.allclose(sums, torch.ones_like(sums), atol=1e-2) and logits.min() >= 0:
        LOGGER.warning(
            "model=%s: its outputs sum to 1 over the classes, as after a softmax; the loss applies a softmax itself, so that the"
            " network learns slowly. Let it give logits",
            config.model["_target_"],
        )
