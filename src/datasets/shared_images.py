"""Images that are in two splits, under whatever name: scores on them would mean nothing."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from src.datasets.reader import SegmentationDataset
from src.errors import DataError

REMOVE_ONE = "remove one of them"


def refuse_shared_images(*splits: SegmentationDataset, advice: str = REMOVE_ONE) -> None:
    """Raises DataError, which ends with the advice, if the same image is in two splits."""
    digests = {d.split: zip((p.image for p in d.pairs), d.samples.facts.image_digests, strict=True) for d in splits}
    for problem in find_shared_images(digests, advice):
        raise DataError(problem)


def find_shared_images(splits: Mapping[str, Iterable[tuple[Path, str]]], advice: str = REMOVE_ONE) -> Iterator[str]:
    """A line for each image that is in two splits.

    Args:
        splits: Name of a split to its images and the hashes of their pixels.
        advice: What the line says to do.
    """
    seen: dict[str, tuple[str, Path]] = {}
    for name, images in splits.items():
        for image, digest in images:
            split, file = seen.setdefault(digest, (name, image))
            if split != name:
                yield f"{image} of {name} is the same picture as {file} of {split}; {advice}"
