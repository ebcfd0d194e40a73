"""Shared fixtures: a composed configuration made small, and a tiny data set on disk."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.datasets import reader

ROOT = Path(__file__).parent.parent

torch.set_num_threads(1)  # tensors are tiny, and two threads that wait for each other are slower


def write_split(root: Path, split: str, num_images: int, size: tuple[int, int], seed: int = 0) -> None:
    """Random images in the SegNet layout whose upper half is Sky (0), lower half Road (3), with a Car (8) and void (11)."""
    generator = np.random.default_rng([seed, *split.encode()])
    height, width = size
    for folder in (root / split, root / f"{split}annot"):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_images):
        mask = np.zeros(size, np.uint8)
        mask[height // 2 :] = 3
        column = int(generator.integers(0, width - 4))
        mask[height // 2 : height // 2 + 4, column : column + 4] = 8
        mask[-2:] = 11
        image = generator.integers(0, 60, (height, width, 3)) + mask[..., None] * 15
        Image.fromarray(image.astype(np.uint8)).save(root / split / f"frame_{number:03d}.png")
        Image.fromarray(mask).save(root / f"{split}annot" / f"frame_{number:03d}.png")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded samples of tests that read data in this process go here, not into data/cache."""
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "CACHE_HOME", home)
        yield home


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A SegNet-layout folder: 12 training and 5 validation images of 24x32."""
    root = tmp_path / "tiny data"
    write_split(root, "train", 12, (24, 32))
    write_split(root, "val", 5, (24, 32))
    return root


@pytest.fixture
def tiny_overrides(tiny_data: Path) -> list[str]:
    """Overrides that make a run of the tiny data last a second."""
    return [
        f"dataset.root='{tiny_data}'",
        "dataset.image_size=null",
        "model.channels=[4,8]",
        "training.epochs=2",
        "loader.batch_size=4",
        "device=cpu",
        "precision=fp32",  # auto is bf16 on processors that have it
        "threads=1",
        "training.panel_images=2",
    ]


@pytest.fixture
def train_process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m src.train ARGUMENTS` as a person would, with outputs/ and data/ under tmp_path."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "src.train", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python COMMAND` as `start_process` does; what a failed test left running is ended."""
    from processes import start_process

    started: list[subprocess.Popen[str]] = []

    def start(*command: str, **options: Any) -> subprocess.Popen[str]:
        started.append(start_process(tmp_path, *command, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
