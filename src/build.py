"""From a configuration to a run that is built and tried."""

import functools
import inspect
import json
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from src.checks import check_batches, check_cache, check_monitor, check_reduction, check_sync_batchnorm, warn_of_gain
from src.config import Config
from src.datasets.reader import SegmentationDataset, Source, check_image_size
from src.datasets.sampler import EpochSampler
from src.datasets.shared_images import refuse_shared_images
from src.datasets.store import leaving_no_trace
from src.device import Compute, Normalize, choose_compute
from src.errors import ConfigError
from src.loading import build_loader, place_samples
from src.models.attunet import AttU_Net
from src.models.unet import UNet
from src.parts import build_model, build_part, checked_node, in_words
from src.ranks import Ranks
from src.rehearsal import identify_rehearsal, leaving_random_state, rehearse, rehearse_on_a_copy, rehearse_schedule
from src.schedules import WarmUp, follows_score, load_schedule, refuse_other_mode, refuse_python, replay_schedule
from src.seeding import seed_everything, use_determinism
from src.setup import Setup
from src.state import EpochTotals, TrainState
from src.targets import KINDS, check_target, check_targets, locate

Splits = tuple[SegmentationDataset, SegmentationDataset]  # training, validation
_REHEARSED: dict[str, nn.Module] = {}  # points of this sweep and their networks without weights


@dataclass(frozen=True)
class Experiment:
    """A run, built and ready: what changes in it, what does not, and its data."""

    state: TrainState
    setup: Setup
    train_data: SegmentationDataset
    val_data: SegmentationDataset


def build(config: Config, data: Splits | None = None) -> Experiment:
    """Builds everything that a run needs; the weights depend on the seed alone.

    Args:
        config: What to build.
        data: Its two splits, where they have been read already.

    Raises:
        ConfigError: If something cannot be built; the message names group and argument.
        DataError: If the data are missing or wrong.
    """
    use_determinism(config.deterministic)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    ranks = Ranks()
    compute = choose_compute(config.device, config.precision, ranks.local if ranks.several else None)
    if compute.device.type == "cuda" and compute.device.index is not None:
        torch.cuda.set_device(compute.device)
    train_data, val_data = data or build_datasets(config)
    for split in (train_data, val_data):
        check_cache(config, split)
        place_samples(config, compute, split)
    seed_everything(config.seed)
    model = build_model(config, train_data.num_classes).to(compute.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    setup = build_setup(config, compute, train_data, val_data)
    check_batches(config, setup, train_data)
    check_monitor(config, setup, val_data)
    if type(rehearse_shapes(config, setup, train_data, val_data)) not in (UNet, AttU_Net):  # known to run: shapes are enough
        rehearse_on_a_copy(config, setup, train_data, val_data)
    warn_of_gain(config, model)
    if config.training.sync_batchnorm:
        check_sync_batchnorm(compute)
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if ranks.several else model
    state = build_state(config, model, compute, train_data.num_classes)
    setup = replace(setup, parallel=ranks.connect(model, compute.device))
    return Experiment(state, setup, train_data, val_data)


def check(config: Config) -> nn.Module:
    """Raises what `build` would raise, without the cost of drawing weights; gives the network without its weights.

    Neither disk nor GPU is written to, so that whoever checks leaves both to those who train.
    """
    compute = replace(choose_compute(config.device, config.precision), device=torch.device("cpu"), half=None)
    train_data, val_data = checked_datasets(config)
    for data in (train_data, val_data):
        check_cache(config, data)
    setup = build_setup(config, compute, train_data, val_data)
    check_batches(config, setup, train_data)
    check_monitor(config, setup, val_data)
    if (key := identify_rehearsal(config)) in _REHEARSED:
        return _REHEARSED[key]
    shapes = rehearse_shapes(config, setup, train_data, val_data)
    _REHEARSED[key] = shapes or rehearse_on_a_copy(config, setup, train_data, val_data).to("meta")
    return _REHEARSED[key]


def rehearse_shapes(
    config: Config, setup: Setup, train_data: SegmentationDataset, val_data: SegmentationDataset
) -> nn.Module | None:
    """Rehearses everything, the network on `meta`, without numbers; None if it fails there, as some do that are right."""
    scheduler = build_lone_scheduler(config, setup.compute.device)
    rehearse_schedule(config, scheduler)
    with leaving_random_state(setup.compute.device):
        try:
            with torch.device("meta"):
                model = build_model(config, setup.num_classes)
            rehearse(config, model, scheduler.optimizer, setup, train_data, val_data)
        except ConfigError as error:
            if not str(error).startswith("model"):
                raise
            return None
    return model


def checked_datasets(config: Config) -> Splits:
    """The two splits, read without a trace on disk, and once: the points of a sweep mostly share their data."""
    return _read_once(json.dumps([config.dataset, config.augmentation]))


@functools.lru_cache(maxsize=4)
def _read_once(nodes: str) -> Splits:
    dataset, augmentation = json.loads(nodes)
    with leaving_no_trace():
        return build_splits(dataset, augmentation, seed=0)


def forget_datasets() -> None:
    """Gives back the memory of what `checked_datasets` has read."""
    _read_once.cache_clear()
    _REHEARSED.clear()


def build_datasets(config: Config) -> Splits:
    """The training split, augmented, and the validation split, never augmented."""
    return build_splits(config.dataset, config.augmentation, config.seed)


def build_splits(dataset: Any, augmentation: Any, seed: int) -> Splits:
    """The two splits of a dataset node, the first with an augmentation node's transforms."""
    transforms = build_part("augmentation", augmentation)
    train = build_part("dataset", dataset, split="train", augmentation=transforms, seed=seed)
    val = build_part("dataset", dataset, split="val", augmentation=None, seed=seed)
    refuse_shared_images(train, val)
    return train, val


def build_source(node: Any) -> tuple[Source, tuple[int, int] | None]:
    """The files of a dataset node, not read yet, and the [height, width] that training brings them to.

    Raises:
        ConfigError: If an argument is not allowed, or the data set's class has no `source`.
        DataError: If no data are there.
    """
    node = checked_node("dataset", node)
    check_targets("dataset", node, {"split": "train", "augmentation": None, "seed": 0})
    source = getattr(locate(node["_target_"]), "source", None)
    if source is None:
        raise ConfigError(f"dataset._target_={node['_target_']}: has no source(), which says where its files are (see CamVid)")
    known = inspect.signature(source).parameters
    with in_words("dataset"):
        return source(**{key: value for key, value in node.items() if key in known}), check_image_size(node.get("image_size"))


def build_state(config: Config, model: nn.Module, compute: Compute, num_classes: int) -> TrainState:
    """Model, optimizer, scheduler and counters at the start of a run."""
    optimizer = build_part("optimizer", config.optimizer, params=list(model.parameters()))
    return TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=build_scheduler(config, optimizer),
        scaler=GradScaler(compute.device.type, enabled=compute.half is torch.float16),
        totals=EpochTotals(num_classes, compute.device),
    )


def build_scheduler(config: Config, optimizer: Optimizer) -> LRScheduler:
    """The schedule, stepped once an epoch, multiplied by a linear rise over its first `warmup_epochs`."""
    warmup_epochs = config.scheduler.get("warmup_epochs", 0)
    if not isinstance(warmup_epochs, int) or warmup_epochs < 0:
        raise ConfigError(f"scheduler.warmup_epochs={warmup_epochs!r}; allowed are whole numbers from 0")
    node = checked_node("scheduler", config.scheduler)
    cls = check_target("scheduler", node, KINDS["scheduler"])
    refuse_python("scheduler", cls)
    if issubclass(cls, ReduceLROnPlateau):
        node = {"mode": config.monitor.mode} | node
        refuse_other_mode("scheduler", node["mode"], config.monitor)
    schedule = build_part("scheduler", node, optimizer=optimizer)
    return WarmUp(schedule, warmup_epochs) if warmup_epochs else schedule


def build_lone_scheduler(config: Config, device: torch.device | None = None) -> LRScheduler:
    """The schedule, on an optimizer of one weight."""
    weights = [nn.Parameter(torch.zeros(1, device=device))]
    return build_scheduler(config, build_part("optimizer", config.optimizer, params=weights))


def stretch_schedule(config: Config, state: TrainState) -> None:
    """Puts a resumed run on the schedule that this configuration has at its epoch, when it is to last longer."""
    if follows_score(state.scheduler):  # which has no end
        return
    scheduler = build_lone_scheduler(config)
    replay_schedule(scheduler, state.epoch)
    load_schedule(state.scheduler, scheduler.state_dict())
    new = {key: value for key, value in scheduler.optimizer.param_groups[0].items() if key != "params"}
    for group in state.optimizer.param_groups:
        group.update(new)  # the learning rate, and the momentum of a schedule that cycles it


def build_setup(config: Config, compute: Compute, train_data: SegmentationDataset, val_data: SegmentationDataset) -> Setup:
    """Loaders, loss and the facts about the data that training needs."""
    loss = build_part(
        "loss",
        config.loss,
        ignore_index=train_data.ignore_index,
        num_classes=train_data.num_classes,
        class_pixels=train_data.class_pixels,
        class_image_pixels=train_data.class_image_pixels,
    )
    check_reduction(loss)
    sampler = EpochSampler(len(train_data), config.seed, shuffle=True)
    val_sampler = EpochSampler(len(val_data), config.seed, shuffle=False)
    class_names = tuple(label.name for label in train_data.classes)
    return Setup(
        train_loader=build_loader(config, compute, train_data, sampler, config.loader.drop_last),
        sampler=sampler,
        val_loader=build_loader(config, compute, val_data, val_sampler, drop_last=False),
        normalize=Normalize(compute.device, train_data.mean, train_data.std),
        compute=compute,
        loss=loss.to(compute.device),
        num_classes=train_data.num_classes,
        ignore_index=train_data.ignore_index,
        class_names=class_names,
        batch_size=config.loader.batch_size,
        ranks=Ranks(),
        extra_classes=train_data.num_classes > len(class_names),
        max_skipped=config.training.max_skipped if config.training.on_nonfinite == "skip" else 0,
    )
