"""What only a built run can tell of a configuration."""

import numpy as np
from torch import nn

from src.config import Config
from src.config_errors import did_you_mean
from src.datasets.device_samples import check_movable
from src.datasets.reader import SegmentationDataset
from src.device import Compute
from src.errors import ConfigError
from src.loop import score_tags
from src.setup import Setup


def check_batches(config: Config, setup: Setup, model: nn.Module, train_data: SegmentationDataset) -> None:
    """Refuses an epoch without a batch, and a batch that BatchNorm cannot normalise."""
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
    smallest //= ranks
    multiple = getattr(model, "size_multiple", 1)
    height, width = train_data[0][1].shape
    if smallest * -(-height // multiple) * -(-width // multiple) == 1:
        raise ConfigError(
            f"a batch of one {height}x{width} image leaves BatchNorm a single value at the deepest level;"
            " use larger images or batches, fewer levels in model.channels, or loader.drop_last=true"
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
    elif tag.startswith("val/") and tag != "val/loss":
        ids = list(range(setup.num_classes if tag == "val/accuracy_all_pixels" else len(setup.class_names)))
    else:
        return
    masks = (val_data[index][1] for index in range(len(val_data)))  # as they are scored: resizing may lose a class
    ids = [number for number in ids if number != setup.ignore_index]
    if not any(np.isin(mask, ids).any() for mask in masks):
        classes = of_class if of_class != tag else "any class that it counts"
        raise ConfigError(
            f"monitor.tag={tag}: no pixel of {classes} in val, so it has no value; choose another, such as val/loss"
        )
