"""Keeps masks class ids: what albumentations would otherwise write into them where it moves pixels."""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

import albumentations as A
import cv2

from src.errors import ConfigError

Transform = A.BasicTransform | A.BaseCompose
NEAREST = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
FILLS = ("fill_mask", "mask_drop_value")  # attributes with the id of new mask pixels; None: the mask is left as it is
REFUSED = {
    "Morphological": "grows some classes and shrinks others by the order of their ids",
    "GridElasticDeform": "leaves id 0, which is a class, where it moves no pixel to",
}


def walk(compose: A.BaseCompose) -> Iterator[Transform]:
    """The composition and everything in it, at any depth."""
    yield compose
    for transform in compose.transforms:
        if isinstance(transform, A.BaseCompose):
            yield from walk(transform)
        else:
            yield transform


def align_masks(transforms: Iterable[Transform]) -> None:
    """Makes each transform give a mask pixel the id of the one pixel that is nearest, aligned with the image.

    Of OpenCV's two rules, warps (Rotate, Affine, Perspective, ElasticTransform and the other distortions) know INTER_NEAREST
    alone, which is aligned there. Resizes (Resize, RandomResizedCrop, CropAndPad, ...) know both: INTER_NEAREST_EXACT samples
    at pixel centres as all rules for images do, except INTER_NEAREST, which floors and so needs the same for the mask.

    Raises:
        ConfigError: At a transform that cannot keep class ids, or is told to interpolate between them.
    """
    for transform in transforms:
        name = type(transform).__name__
        if transform.p == 0:
            continue
        if name in REFUSED:
            raise ConfigError(f"augmentation: {name} {REFUSED[name]}; leave it out")
        if isinstance(transform, A.SelectiveChannelTransform):
            if moving := [type(t).__name__ for t in walk(transform) if isinstance(t, A.DualTransform)]:
                raise ConfigError(f"augmentation: {', '.join(moving)} in {name} moves the image without its mask; move it out")
        elif isinstance(transform, A.BasicTransform) and hasattr(transform, "mask_interpolation"):
            _align(transform, name)


def _align(transform: Any, name: str) -> None:
    if (given := transform.mask_interpolation) not in NEAREST:
        raise ConfigError(f"augmentation: {name}.mask_interpolation={given} mixes class ids; leave it out, for nearest")
    if getattr(transform, "area_for_downscale", None) == "image_mask":
        raise ConfigError(f"augmentation: {name}.area_for_downscale=image_mask mixes class ids; use image, or null")
    rules = get_args(type(transform).InitSchema.model_fields["mask_interpolation"].annotation)
    exact = cv2.INTER_NEAREST_EXACT in rules and transform.interpolation != cv2.INTER_NEAREST
    transform.mask_interpolation = cv2.INTER_NEAREST_EXACT if exact else cv2.INTER_NEAREST


def fill_masks(transforms: Iterable[Transform], ignore_index: int) -> None:
    """Makes new mask pixels ignored, wherever a transform pads, rotates in, or drops and is to mark that in the mask."""
    for transform in transforms:
        for name in FILLS:
            if getattr(transform, name, None) is not None:
                setattr(transform, name, ignore_index)
