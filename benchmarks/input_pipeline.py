"""How many images a second the input pipeline gives, against the original script's reader, in one process and one run.

Both sides start from PNG files and end with a normalised float batch at 224x224. `python -m benchmarks.input_pipeline`
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.datasets import reader
from src.datasets.augmentation import Augmentation
from src.datasets.camvid import CamVid
from src.datasets.files import read_pair, refuse
from src.datasets.street_scenes.scene import render_scene
from src.device import Normalize

SIZES = {"480x360": (360, 480), "960x720": (720, 960)}  # height, width
TRAINING_SIZE = (224, 224)
BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CACHES: tuple[reader.Cache, ...] = ("disk", "memory", "device")
ROUNDS = 5
GOALS = {"480x360": 15, "960x720": 50}


class OriginalReader(Dataset[tuple[Tensor, Tensor]]):
    """The original script's way: each image is decoded, resized, flipped and normalised each time."""

    def __init__(self, root: Path) -> None:
        self.images = sorted((root / "train").iterdir())
        self.masks = sorted((root / "trainannot").iterdir())
        self.transform = A.Compose(
            [A.Resize(*TRAINING_SIZE), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.Normalize(MEAN, STD)]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image float [3, h, w] and mask int64 [h, w]."""
        image = np.array(Image.open(self.images[index]).convert("RGB"))
        mask = np.array(Image.open(self.masks[index]).convert("L"))
        done = self.transform(image=image, mask=mask)
        return torch.from_numpy(done["image"].transpose(2, 0, 1)), torch.from_numpy(done["mask"]).long()


def write_sources(root: Path, size: tuple[int, int], number: int) -> None:
    """PNG files of this size: real CamVid, enlarged with a little noise where needed, or rendered streets."""
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True)
    for index, (image, mask) in enumerate(pictures(number)):
        width_height = (size[1], size[0])
        if mask.shape != size:
            image = np.array(Image.fromarray(image).resize(width_height, Image.Resampling.BICUBIC))
            noise = np.random.default_rng(index).normal(0, 2, image.shape)
            image = (image + noise).round().clip(0, 255).astype(np.uint8)
            mask = np.array(Image.fromarray(mask).resize(width_height, Image.Resampling.NEAREST))
        Image.fromarray(image).save(root / "train" / f"{index:04d}.png")
        Image.fromarray(mask).save(root / "trainannot" / f"{index:04d}.png")


def pictures(number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of 360x480."""
    if "CAMVID_ROOT" not in os.environ:
        yield from (render_scene(0, index, 360, 480) for index in range(number))
        return
    source = CamVid.source(os.environ["CAMVID_ROOT"])
    for pair in source.pairs("train", refuse)[:number]:
        image, stored = read_pair(pair)
        yield image.pixels, source.labels.decode(stored.pixels, pair.mask)[0]


def speed(batches: Callable[[], Iterator[Tensor]], seconds: float) -> float:
    """Images per second over as many whole epochs as `seconds` hold."""
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for batch in batches():
            images += len(batch)
    return images / (time.perf_counter() - start)


def original_batches(root: Path) -> Callable[[], Iterator[Tensor]]:
    """One epoch of the original's batches."""
    loader = DataLoader(OriginalReader(root), batch_size=BATCH, shuffle=True)
    return lambda: (images for images, _ in loader)


def our_batches(root: Path, cache: reader.Cache) -> Callable[[], Iterator[Tensor]]:
    """One epoch of this project's batches, another epoch at each call."""
    flips = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    data = CamVid(str(root), "train", image_size=TRAINING_SIZE, cache=cache, augmentation=flips)
    normalize = Normalize(torch.device("cpu"), MEAN, STD)
    if cache == "device":
        data.place_on(torch.device("cpu"))
    epoch = 0

    def batches() -> Iterator[Tensor]:
        nonlocal epoch
        epoch += 1
        order = np.random.default_rng([0, epoch]).permutation(len(data))
        for first in range(0, len(order), BATCH):
            images, masks = data.batch([(epoch, int(index)) for index in order[first : first + BATCH]])
            masks.long()
            yield normalize(images)

    return batches


def measure(name: str, number: int, seconds: float) -> dict[str, Any]:
    """One row: images per second of both, their ratios (medians), and the seconds of the first epoch of both."""
    work = Path(tempfile.mkdtemp(prefix="input_pipeline_"))
    try:
        reader.CACHE_HOME = work / "cache"
        write_sources(work / "data", SIZES[name], number)
        first_original = seconds_of(original_batches(work / "data"))
        start = time.perf_counter()
        seconds_of(our_batches(work / "data", "disk"))
        first_ours = time.perf_counter() - start
        sides = {"original": original_batches(work / "data")}
        sides |= {cache: our_batches(work / "data", cache) for cache in CACHES}
        speeds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(ROUNDS):  # in turn, so that a slow moment of the machine meets all of them
            for side, batches in sides.items():
                speeds[side].append(speed(batches, seconds / ROUNDS))
        row: dict[str, Any] = {"source": name, "images": number, "original": statistics.median(speeds["original"])}
        for cache in CACHES:
            ratios = [ours / theirs for ours, theirs in zip(speeds[cache], speeds["original"], strict=True)]
            row |= {cache: statistics.median(speeds[cache]), f"{cache}_ratio": statistics.median(ratios)}
        return row | {"first_epoch_original_s": first_original, "first_epoch_ours_s": first_ours}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def seconds_of(batches: Callable[[], Iterator[Tensor]]) -> float:
    """How long one epoch takes."""
    start = time.perf_counter()
    for _ in batches():
        pass
    return time.perf_counter() - start


def main() -> None:
    """The command line; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input_pipeline", description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one process")
    print("the cache is built in several threads, all else runs in one")
    missed = []
    for name, goal in GOALS.items():
        row = measure(name, arguments.images, arguments.seconds)
        print(json.dumps({key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()}), flush=True)
        if row["disk_ratio"] < goal:
            missed.append(f"{name}: disk {row['disk_ratio']:.2f} times the original, the goal is {goal}")
        if row["first_epoch_ours_s"] > row["first_epoch_original_s"]:
            missed.append(f"{name}: the first epoch takes longer than the original's")
    sys.exit("; ".join(missed) or 0)


if __name__ == "__main__":
    main()
