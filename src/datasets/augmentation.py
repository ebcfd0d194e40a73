"""Resizing, and random transforms whose randomness depends on (seed, epoch, index) alone."""

import random
from collections.abc import Sequence
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np

from src.datasets.augmentation_trial import even_odds, explain_failure, explain_problem, find_problem, watching
from src.datasets.mask_ids import align_masks, fill_masks, walk
from src.datasets.randomness import Purpose, make_generator
from src.errors import ConfigError

cv2.setNumThreads(0)  # samples are small and loader workers many: OpenCV's own threads only get in the way

Sample = tuple[np.ndarray, np.ndarray]
FEWEST_DRAWS, MOST_DRAWS = 8, 100  # of each sample that transforms are tried on
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

    Masks stay class ids whatever the transforms say. `mask_interpolation` is the nearest rule that is aligned with the image
    (see `align_masks`). New mask pixels have the data set's ignore index: `fill_mask` and `mask_drop_value` say only whether
    the mask is filled (a number, always albumentations' default where it pads or rotates) or left as it is (null, its default
    for CoarseDropout and its kind).

    Args:
        transforms: Applied in turn, to an image uint8 [height, width, 3] and a mask uint8 [height, width], and end in such.
        from_native: Whether the transforms see the image at its native size and themselves bring it to
            `dataset.image_size` (as a random crop does), or after the resize.

    Raises:
        ConfigError: At a transform that cannot keep class ids.
    """

    def __init__(self, transforms: Sequence[A.BasicTransform | A.BaseCompose], from_native: bool = False) -> None:
        self.compose = A.Compose(list(transforms))
        self.from_native = from_native
        self._transforms = list(walk(self.compose))
        self._size: tuple[int, ...] | None = None  # [height, width] of all results, once a data set has said so
        self._size_is_set = False  # by dataset.image_size, rather than by the first result
        self._resizers: set[str] = set()
        align_masks(self._transforms)

    def fit_to(self, ignore_index: int, image_size: tuple[int, int] | None, samples: Sequence[Sample]) -> None:
        """Fills new mask pixels with `ignore_index`, and tries the transforms on a few samples.

        Rare transforms are tried as often as others. Random numbers drawn later are not touched.

        Args:
            ignore_index: The data set's.
            image_size: [height, width] that all results must have; None: they must agree.
            samples: Images and masks as the transforms will see them, of the smallest height and width.

        Raises:
            ConfigError: If something else than samples of one size comes out; the message names the transform.
        """
        fill_masks(self._transforms, ignore_index)
        self._size, self._size_is_set = image_size, image_size is not None
        waiting = {id(t) for t in self._transforms if isinstance(t, A.BasicTransform) and t.p > 0}
        known = [{*np.unique(mask).tolist(), ignore_index} for _, mask in samples]
        with even_odds(self._transforms), watching(self._transforms) as steps:
            for draw in range(MOST_DRAWS):
                if draw >= FEWEST_DRAWS and not waiting:
                    break
                for (image, mask), ids in zip(samples, known, strict=True):
                    steps.clear()
                    self._seed((draw,))
                    result = self._apply({"image": image, "mask": mask})
                    if find_problem(result, ids):
                        raise ConfigError(explain_problem(steps, result, ids))
                    waiting -= {id(step.transform) for step in steps}
                    self._resizers |= {step.name for step in steps if step.resizes}
                    self._size = self._size or result["mask"].shape
                    self.check_size(result["mask"].shape)

    def __call__(self, image: np.ndarray, mask: np.ndarray, key: Sequence[int]) -> Sample:
        """Image uint8 [height, width, 3] and mask uint8 [height, width], transformed; `key` seeds the randomness."""
        self._seed(key)
        result = self._apply({"image": image, "mask": mask})
        if find_problem(result):
            with watching(self._transforms) as steps:
                self._seed(key)
                self._apply({"image": image, "mask": mask})
            raise ConfigError(explain_problem(steps, result))
        self.check_size(result["mask"].shape)
        return result["image"], result["mask"]

    def draw(self, shape: tuple[int, int], key: Sequence[int]) -> list[tuple[str, dict[str, Any]]]:
        """Names and parameters of the transforms that a sample of this [height, width] would go through, in turn."""
        self._seed(key)
        self.compose.save_applied_params = True
        try:
            return self._apply({"image": np.empty((*shape, 1), np.uint8)})["applied_transforms"]
        finally:
            self.compose.save_applied_params = False

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Raises ConfigError if a result of this [height, width] is not of the size that all must have."""
        if self._size is None or shape == self._size:
            return
        given, wanted = (f"{height}x{width}" for height, width in (shape, self._size))
        cause = f"{', '.join(sorted(self._resizers)) or 'no transform'} changes the size"
        if self._size_is_set:
            raise ConfigError(
                f"augmentation gave {given} where dataset.image_size is {wanted}: {cause}; end its transforms at that size,"
                " whatever chance decides"
            )
        raise ConfigError(
            f"augmentation gave {wanted} and {given}, which cannot share a batch: {cause} by chance; make it certain (p: 1),"
            " or set dataset.image_size and end its transforms at that size"
        )

    def _apply(self, data: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.compose(**data)
        except MemoryError:
            raise
        except Exception as error:  # whatever a transform raises, it is the transform that does not fit
            raise ConfigError(explain_failure(error, data["image"].shape)) from error

    def _seed(self, key: Sequence[int]) -> None:
        generator = make_generator(Purpose.AUGMENTATION, *key)
        python_random = random.Random(int(generator.integers(2**63)))
        for transform in self._transforms:
            transform.set_random_state(generator, python_random)


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
