"""What a transform made of a sample, step by step, and which one is to blame when that is no sample any more."""

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import albumentations as A
import numpy as np

from src.datasets.mask_ids import Transform

Data = Mapping[str, Any]  # `image`, `mask` and more, as albumentations passes them on


class Step(NamedTuple):
    """One transform was applied."""

    transform: A.BasicTransform
    before: Data
    after: Data

    @property
    def name(self) -> str:
        """As YAML spells it."""
        return type(self.transform).__name__

    @property
    def resizes(self) -> bool:
        """Whether height or width changed."""
        return np.shape(self.before["image"])[:2] != np.shape(self.after["image"])[:2]


@contextlib.contextmanager
def watching(transforms: Iterable[Transform]) -> Iterator[list[Step]]:
    """Within, each transform that is applied appends a step."""
    steps: list[Step] = []
    leaves = {id(transform): transform for transform in transforms if isinstance(transform, A.BasicTransform)}
    for leaf in leaves.values():
        leaf.apply_with_params = functools.partial(_apply, leaf, leaf.apply_with_params, steps)
    try:
        yield steps
    finally:
        for leaf in leaves.values():
            delattr(leaf, "apply_with_params")


def _apply(
    leaf: A.BasicTransform, apply: Callable[..., dict[str, Any]], steps: list[Step], params: dict[str, Any], **data: Any
) -> dict[str, Any]:
    result = apply(params, **data)
    steps.append(Step(leaf, data, result))
    return result


@contextlib.contextmanager
def even_odds(transforms: Iterable[Transform]) -> Iterator[None]:
    """Within, what happens by chance happens half of the time, and OneOf chooses evenly: few draws show what can happen."""
    with contextlib.ExitStack() as restored:
        for transform in transforms:
            if 0 < transform.p < 1:
                restored.callback(setattr, transform, "p", transform.p)
                transform.p = 0.5
            if isinstance(transform, A.OneOf):
                restored.callback(setattr, transform, "transforms_ps", transform.transforms_ps)
                choices = sum(share > 0 for share in transform.transforms_ps)
                transform.transforms_ps = [(share > 0) / choices for share in transform.transforms_ps]
        yield


def find_problem(data: Data, ids: set[int] | None = None) -> str:
    """What keeps the data from being an image uint8 [height, width, 3] and its mask uint8 [height, width]; '' if nothing.

    Args:
        data: `image` and `mask`.
        ids: Those that the mask may have; None: they are not looked at.
    """
    image, mask = data.get("image"), data.get("mask")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        return f"an image {_describe(image)}"
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2:
        return f"a mask {_describe(mask)}"
    if mask.shape != image.shape[:2]:
        return f"an image {_describe(image)} and a mask {_describe(mask)}"
    if ids is not None and (strange := set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()) - ids):
        return f"a mask with the ids {', '.join(map(str, sorted(strange)))}, which are none of the sample's"
    return ""


def _describe(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}" if hasattr(array, "dtype") else type(array).__name__


def explain_problem(steps: list[Step], result: Data, ids: set[int] | None = None) -> str:
    """Names the last transform that was given a sample and gave something else."""
    guilty = [step for step in steps if not find_problem(step.before, ids) and find_problem(step.after, ids)]
    name = guilty[-1].name if guilty else "a transform"
    return (
        f"augmentation: {name} gives {find_problem(result, ids)}; after all transforms a sample must be an image uint8"
        f" [height, width, 3] and a mask uint8 [height, width] of known ids (training normalizes by itself): leave {name} out"
    )


def explain_failure(error: Exception, shape: tuple[int, ...]) -> str:
    """Names the transform that raised this, given an image of this shape, and why."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [type(owner).__name__ for owner in owners if isinstance(owner, A.BasicTransform)]
    name = names[-1] if names else "a transform"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if isinstance(error, KeyError):
        reason = f"it needs {reason}, and a sample has an image and a mask alone"
    return f"augmentation: {name} fails on an image of {shape[0]}x{shape[1]}: {reason}. Change its arguments, or leave it out"
