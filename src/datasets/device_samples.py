"""A split that lives on the device as uint8: batches are gathered there, transformed as the CPU would transform them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from src.datasets.augmentation import Augmentation
from src.datasets.samples import Samples
from src.errors import ConfigError

MOVES = ("HorizontalFlip", "VerticalFlip", "RandomCrop", "CenterCrop")  # transforms that only move whole pixels
Key = int | tuple[int, int]


def unmovable(augmentation: Augmentation | None) -> list[str]:
    """Names of the transforms that cannot be done by moving whole pixels."""
    transforms = augmentation.compose.transforms if augmentation else []
    return [type(t).__name__ for t in transforms if type(t).__name__ not in MOVES or getattr(t, "pad_if_needed", False)]


def check_movable(samples: Samples, augmentation: Augmentation | None) -> None:
    """Raises ConfigError if sizes differ, or the augmentation does more than move whole pixels."""
    if len(set(samples.facts.shapes)) > 1:
        raise ConfigError("dataset.cache=device: the images have different sizes; set dataset.image_size, or use cache=disk")
    if others := unmovable(augmentation):
        raise ConfigError(f"dataset.cache=device: {', '.join(others)} runs on the CPU alone; use dataset.cache=disk")


class DeviceSamples:
    """Samples of one size on a device.

    Args:
        samples: What to copy there.
        device: Where to.
        augmentation: What batches will be transformed by.

    Raises:
        ConfigError: See `check_movable`.
    """

    def __init__(self, samples: Samples, device: torch.device, augmentation: Augmentation | None) -> None:
        check_movable(samples, augmentation)
        self.device = device
        self.height, self.width = samples.facts.shapes[0]
        flat = torch.from_numpy(np.stack([samples.flat(index) for index in range(len(samples))])).to(device)
        area = self.height * self.width
        self.images = flat[:, : 3 * area].reshape(len(samples), self.height, self.width, 3)
        self.masks = flat[:, 3 * area :].reshape(len(samples), self.height, self.width)

    def batch(self, keys: Sequence[Key], augmentation: Augmentation | None, seed: int) -> tuple[Tensor, Tensor]:
        """uint8 [batch, height, width, 3] and [batch, height, width] on the device, of (epoch, index) keys or indices."""
        pairs = [key if isinstance(key, tuple) else (0, key) for key in keys]
        indices = np.array([index for _, index in pairs])
        if augmentation is None or not augmentation.compose.transforms:
            chosen = self._send(indices)
            return self.images[chosen], self.masks[chosen]
        places = [self._places(augmentation, (seed, epoch, index)) for epoch, index in pairs]
        rows, columns = (np.stack(side) for side in zip(*places, strict=True))
        chosen = self._send(indices)[:, None, None]
        row, column = self._send(rows)[:, :, None], self._send(columns)[:, None, :]
        return self.images[chosen, row, column], self.masks[chosen, row, column]

    def _places(self, augmentation: Augmentation, key: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Which rows and which columns of the sample the transformed one consists of."""
        rows, columns = np.arange(self.height), np.arange(self.width)
        for name, parameters in augmentation.draw((self.height, self.width), key):
            if name == "HorizontalFlip":
                columns = columns[::-1]
            elif name == "VerticalFlip":
                rows = rows[::-1]
            else:
                left, top, right, bottom = parameters["crop_coords"]
                rows, columns = rows[top:bottom], columns[left:right]
        augmentation.check_size((len(rows), len(columns)))
        return rows, columns

    def _send(self, numbers: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(numbers))
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)
