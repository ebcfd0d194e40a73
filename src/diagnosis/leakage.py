"""Frames of one video that lie next to each other in two splits."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from src.datasets.frame_names import frame_of
from src.diagnosis.audit import Problems, SplitAudit

NEAR = 60  # frames: nearer ones, two seconds of CamVid's video at 30 frames a second, show nearly the same


def find_near_frames(splits: Sequence[SplitAudit], problems: Problems) -> list[dict[str, object]]:
    """For each two splits that share a video sequence: how few frames lie between them; reports those that are near."""
    found: list[dict[str, object]] = []
    for first, second in itertools.combinations(splits, 2):
        here, there = frames_by_sequence(first), frames_by_sequence(second)
        for sequence in sorted(here.keys() & there.keys()):
            distance, one, other = min((abs(a - b), a, b) for a in here[sequence] for b in there[sequence])
            if distance == 0:  # the same number twice: each split counts its own pictures, and these are no frames
                continue
            found.append({"sequence": sequence, "splits": [first.name, second.name], "frames_apart": distance})
            if distance <= NEAR:
                problems.warnings.append(
                    f"{first.name} and {second.name} share the sequence {sequence}: frames {one} and {other} are"
                    f" {distance} apart; scores on {second.name} flatter"
                )
    return found


def frames_by_sequence(split: SplitAudit) -> dict[str, list[int]]:
    """Frame numbers of each sequence, as CamVid names them: `0016E5_07959` is frame 7959 of sequence 0016E5."""
    frames: dict[str, list[int]] = defaultdict(list)
    for pair in split.pairs:
        frame = frame_of(pair.image.stem)
        if frame.sequence:
            frames[frame.sequence].append(frame.number)
    return frames
