"""Images of one split that are in another one, or lie next to one in the same video."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from src.datasets.frame_names import frame_of
from src.datasets.layouts import segnet_splits
from src.datasets.reader import SegmentationDataset
from src.datasets.shared_images import refuse_shared_images
from src.errors import UserError

NEAR = 60  # frames: nearer ones, two seconds of CamVid's video at 30 frames a second, show nearly the same
LEARNT_FROM = ("train", "val")  # the splits that weights and the choice of a checkpoint depend on


def find_near_frames(splits: Mapping[str, Sequence[str]], warnings: list[str]) -> list[dict[str, object]]:
    """For each two splits that share a video sequence: how few frames lie between them; warns of those that are near.

    Args:
        splits: Name of a split to the names of its images, without folder and ending.
        warnings: Receives a line for each two that are near.
    """
    found: list[dict[str, object]] = []
    sequences_of_camvid = {frame_of(name).sequence for name in segnet_splits()}
    for first, second in itertools.combinations(splits, 2):
        here, there = frames_by_sequence(splits[first]), frames_by_sequence(splits[second])
        for sequence in sorted(here.keys() & there.keys()):
            distance, one, other = min((abs(a - b), a, b) for a in here[sequence] for b in there[sequence])
            if distance == 0 and sequence not in sequences_of_camvid:
                continue  # each split counts its own images from the start, and these are no frames
            found.append({"sequence": sequence, "splits": [first, second], "frames_apart": distance})
            if distance <= NEAR:
                warnings.append(
                    f"{first} and {second} share the sequence {sequence}: frames {one} and {other} are"
                    f" {distance} apart; scores on {second} are optimistic"
                )
    return found


def frames_by_sequence(names: Sequence[str]) -> dict[str, list[int]]:
    """Frame numbers of each sequence, as CamVid names them: `0016E5_07959` is frame 7959 of sequence 0016E5."""
    frames: dict[str, list[int]] = defaultdict(list)
    for frame in map(frame_of, names):
        if frame.sequence:
            frames[frame.sequence].append(frame.number)
    return frames


def check_leakage(
    scored: SegmentationDataset, read_split: Callable[[str], SegmentationDataset], fingerprints: Mapping[str, str]
) -> dict[str, Any]:
    """Compares a split with those that a run was trained on and its checkpoint chosen by.

    Args:
        scored: The split.
        read_split: Reads another split of the same data set, by its name.
        fingerprints: Of the run's splits at the time of training.

    Returns:
        `compared_with`, the splits that share no image with it; `near_frames`, as `find_near_frames` gives them; and
        `warnings`, a line for near frames and for each split that could not be compared.

    Raises:
        DataError: If an image is in both.
    """
    compared: list[str] = []
    near: list[dict[str, object]] = []
    warnings: list[str] = []
    for name in LEARNT_FROM:
        if name == scored.split:
            continue
        other = _as_trained(name, read_split, fingerprints)
        if isinstance(other, str):
            warnings.append(f"{scored.split} could not be compared with {name}, so that they may share images: {other}")
            continue
        refuse_shared_images(other, scored, advice=f"a score on it would mean nothing, so remove it from {scored.split}")
        near += find_near_frames({name: other.names, scored.split: scored.names}, warnings)
        compared.append(name)
    return {"compared_with": compared, "near_frames": near, "warnings": warnings}


def _as_trained(
    name: str, read_split: Callable[[str], SegmentationDataset], fingerprints: Mapping[str, str]
) -> SegmentationDataset | str:
    """The split as the run had it, or why it is not at hand."""
    if name not in fingerprints:
        return f"run.json has no fingerprint of {name}"
    try:
        data = read_split(name)
    except UserError as error:
        return str(error)
    if data.fingerprint != fingerprints[name]:
        return f"{name} was {fingerprints[name]} when the run was trained and is {data.fingerprint} now"
    return data
