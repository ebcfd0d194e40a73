"""Resizing, and random transforms whose randomness depends on (seed, epoch, index) alone."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np

from src.datasets.randomness import Purpose, make_generator
from src.errors import ConfigError

cv2.setNumThreads(0)  # samples are small and loader workers many: OpenCV's own threads only get in the way

Sample = tuple[np.ndarray, np.ndarray]
MaskResize = Literal["center", "floor"]
INTERPOLATION: dict[MaskResize, int] = {"center": cv2.INTER_NEAREST_EXACT, "floor": cv2.INTER_NEAREST}
RESIZE_RULES: dict[MaskResize, str] = {  # as a protocol says it
    "center": "image bilinear, mask nearest at pixel centres",
    "floor": "image bilinear, mask nearest with coordinates rounded down",
}


class Augmentation:
    """Random albumentations transforms of an image and its mask.

    albumentations 2.0.8 repeats its own random numbers in every worker and epoch, so each sample's generator is set
    from (seed, epoch, index): the same whatever the number of workers, the order and the point of a resume.

    Args:
        transforms: Applied in turn. Those that resample masks must do so with NEAREST_EXACT (see `resize`).
        from_native: Whether the transforms see the image at its native size and themselves bring it to
            `dataset.image_size` (as a random crop does), or after the resize.
    """

    def __init__(self, transforms: Sequence[A.BasicTransform | A.BaseCompose], from_native: bool = False) -> None:
        self.compose = A.Compose(list(transforms))
        self.from_native = from_native
        self._transforms = list(_walk(self.compose))

    def __call__(self, image: np.ndarray, mask: np.ndarray, key: Sequence[int]) -> Sample:
        """Image uint8 [height, width, 3] and mask uint8 [height, width], transformed; `key` seeds the randomness."""
        self._seed(key)
        result = self.compose(image=image, mask=mask)
        return result["image"], result["mask"]

    def draw(self, shape: tuple[int, int], key: Sequence[int]) -> list[tuple[str, dict[str, Any]]]:
        """Names and parameters of the transforms that a sample of this [height, width] would go through, in turn."""
        self._seed(key)
        self.compose.save_applied_params = True
        try:
            return self.compose(image=np.empty((*shape, 1), np.uint8))["applied_transforms"]
        finally:
            self.compose.save_applied_params = False

    def _seed(self, key: Sequence[int]) -> None:
        generator = make_generator(Purpose.AUGMENTATION, *key)
        python_random = random.Random(int(generator.integers(2**63)))
        for transform in self._transforms:
            transform.set_random_state(generator, python_random)


def check_augmented_size(shape: Sequence[int], image_size: Sequence[int] | None) -> None:
    """Raises ConfigError if an augmented sample of this [height, width] is not of `dataset.image_size`."""
    if image_size is not None and tuple(shape) != tuple(image_size):
        raise ConfigError(
            f"augmentation gave {shape[0]}x{shape[1]} where dataset.image_size is {image_size[0]}x{image_size[1]};"
            " end its transforms at that size"
        )


def _walk(compose: A.BaseCompose) -> Iterator[A.BaseCompose | A.BasicTransform]:
    yield compose
    for transform in compose.transforms:
        if isinstance(transform, A.BaseCompose):
            yield from _walk(transform)
        else:
            yield transform


def resize(image: np.ndarray, mask: np.ndarray, size: Sequence[int] | None, mask_resize: MaskResize = "center") -> Sample:
    """Resizes the image (bilinear) and its mask (nearest neighbour) to `size` (height, width); None leaves them.

    Args:
        image: uint8 [height, width, 3].
        mask: uint8 [height, width].
        size: The new height and width in pixels.
        mask_resize: See `resize_mask`.
    """
    if size is None or tuple(size) == mask.shape:
        return image, mask
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), resize_mask(mask, size, mask_resize)


def resize_mask(mask: np.ndarray, size: Sequence[int], mask_resize: MaskResize = "center") -> np.ndarray:
    """The mask at `size` (height, width), by nearest neighbour.

    Args:
        mask: uint8 [height, width].
        size: The new height and width in pixels.
        mask_resize: `center` samples at pixel centres, as the bilinear resize of the image does, so that both stay
            aligned. `floor` rounds coordinates down (cv2.INTER_NEAREST, the default of albumentations, which the original
            script uses): a 224x224 mask is shifted by up to half a pixel against its image, which costs a perfect
            prediction 8 points of mIoU on CamVid's val.
    """
    return cv2.resize(mask, (size[1], size[0]), interpolation=INTERPOLATION[mask_resize])
