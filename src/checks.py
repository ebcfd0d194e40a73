"""What only a built run can tell of a configuration."""

import logging

import numpy as np
from torch import nn

from src.config import Config
from src.config_errors import did_you_mean
from src.datasets.device_samples import check_movable
from src.datasets.reader import SegmentationDataset
from src.device import Compute
from src.errors import ConfigError
from src.loop import score_tags
from src.models.initialization import WITHOUT_GAIN
from src.models.unet import UNet
from src.setup import Setup

LOGGER = logging.getLogger("src")


def check_batches(config: Config, setup: Setup, train_data: SegmentationDataset) -> None:
    """Refuses an epoch without a batch, and a batch of which a rank has no image."""
    batch_size, images = config.loader.batch_size, len(train_data)
    if len(setup.train_loader) == 0:
        raise ConfigError(
            f"loader.batch_size={batch_size}: the training split has {images} images, fewer than a batch, and"
            f" loader.drop_last leaves them all out; use loader.batch_size={images} at most, or loader.drop_last=false"
        )
    smallest = batch_size if config.loader.drop_last else images % batch_size or batch_size
    ranks = setup.ranks.size
    if smallest < ranks:
        raise ConfigError(
            f"loader.batch_size={batch_size}: the smallest of its batches has {smallest} images for {ranks} ranks, which share"
            " each batch; use a larger one, or loader.drop_last=true"
        )


def check_cache(config: Config, data: SegmentationDataset) -> None:
    """Refuses to make batches on the device where that cannot be done."""
    if data.cache == "device":
        check_movable(data.samples, data.augmentation)
        if config.loader.num_workers:
            raise ConfigError(
                f"loader.num_workers={config.loader.num_workers}: dataset.cache=device makes batches on the device; use 0"
            )


def check_sync_batchnorm(compute: Compute) -> None:
    """Refuses statistics over all ranks where torch has none."""
    if compute.device.type != "cuda":
        raise ConfigError(f"training.sync_batchnorm=true: torch has it for CUDA alone, the device is {compute.device}; use false")


def check_monitor(config: Config, setup: Setup, val_data: SegmentationDataset) -> None:
    """Refuses to rank epochs by a score that there is not, or that has no value in any epoch."""
    tags = score_tags(setup)
    tag = config.monitor.tag
    if tag not in tags:
        raise ConfigError(f"monitor.tag={tag}: no such score{did_you_mean(tag, tags)}; there are {', '.join(tags)}")
    of_class = tag.removeprefix("val/iou/")
    if of_class != tag:
        ids = [setup.class_names.index(of_class)]
    elif tag.startswith("val/"):
        counts_all = tag in ("val/loss", "val/accuracy_all_pixels")
        ids = list(range(setup.num_classes if counts_all else len(setup.class_names)))
    else:
        return
    masks = (val_data[index][1] for index in range(len(val_data)))  # as they are scored: resizing may lose a class
    ids = [number for number in ids if number != setup.ignore_index]
    if not any(np.isin(mask, ids).any() for mask in masks):
        classes = of_class if of_class != tag else "any class that it counts"
        other = "train/loss" if tag == "val/loss" else "val/loss"
        raise ConfigError(f"monitor.tag={tag}: no pixel of {classes} in val, so it has no value; choose another, such as {other}")


def check_reduction(loss: nn.Module) -> None:
    """Refuses a loss that is not a mean: its gradient would depend on the number of ranks."""
    reduction = getattr(loss, "reduction", "mean")
    if reduction in ("none", "sum"):
        raise ConfigError(f"loss.reduction={reduction}: the sum over the whole batch is divided once, over all ranks; use mean")


def warn_of_gain(config: Config, model: nn.Module) -> None:
    """Says where `model.init_gain` changes nothing."""
    init, gain = config.model.get("init"), config.model.get("init_gain")
    if isinstance(model, UNet) and init in WITHOUT_GAIN and gain is not None:
        LOGGER.warning("model.init_gain=%s has no effect: model.init=%s takes no gain; use model.init_gain=null", gain, init)
