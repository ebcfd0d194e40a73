"""Pictures that are in two splits, under whatever name: scores on them would say nothing."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from src.datasets.reader import SegmentationDataset
from src.errors import DataError


def refuse_shared_images(*splits: SegmentationDataset) -> None:
    """Raises DataError if the same picture is in two splits."""
    digests = {d.split: zip((p.image for p in d.pairs), d.samples.facts.image_digests, strict=True) for d in splits}
    for problem in find_shared_images(digests):
        raise DataError(problem)


def find_shared_images(splits: Mapping[str, Iterable[tuple[Path, str]]]) -> Iterator[str]:
    """A line for each picture that is in two splits.

    Args:
        splits: Name of a split to its images and the hashes of their pixels.
    """
    seen: dict[str, tuple[str, Path]] = {}
    for name, images in splits.items():
        for image, digest in images:
            split, file = seen.setdefault(digest, (name, image))
            if split != name:
                yield f"{image} of {name} is the same picture as {file} of {split}; take one away"
