"""What the name of an image says of the video that it is a frame of."""

import re
from collections.abc import Sequence
from typing import NamedTuple

FRAME = re.compile(r"(?P<sequence>.*?)[_-]?f?(?P<number>\d+)$")


class Frame(NamedTuple):
    """Which frame of which video an image is; frame 0 of no video where its name has no number.

    Attributes:
        sequence: The video's name; empty where images have numbers alone, or none.
        number: Counted as the video's maker did.
    """

    sequence: str
    number: int


def frame_of(name: str) -> Frame:
    """`0016E5_07959` is frame 7959 of the video 0016E5."""
    match = FRAME.fullmatch(name)
    return Frame(match["sequence"], int(match["number"])) if match else Frame("", 0)


def frame_order(names: Sequence[str], sequences: Sequence[str]) -> list[int]:
    """Places of the names, video by video, in the order in which the frames were filmed."""
    return sorted(range(len(names)), key=lambda place: (sequences[place], frame_of(names[place]).number, names[place]))
