"""What an image's name says of its video."""

import pytest

from src.datasets.frame_names import frame_of, frame_order


@pytest.mark.parametrize(
    ("name", "sequence", "number"),
    [
        ("0016E5_07959", "0016E5", 7959),  # CamVid's four spellings
        ("0001TP_006690", "0001TP", 6690),
        ("Seq05VD_f00000", "Seq05VD", 0),
        ("0006R0_f03930", "0006R0", 3930),
        ("aachen_000000_000019", "aachen_000000", 19),
        ("000123", "", 123),
        ("portrait", "", 0),
    ],
)
def test_names_of_frames(name: str, sequence: str, number: int) -> None:
    assert frame_of(name) == (sequence, number)


def test_frames_are_ordered_as_they_were_filmed() -> None:
    names = ["b_2", "a_10", "a_9", "b_1"]
    order = frame_order(names, [frame_of(name).sequence for name in names])
    assert [names[place] for place in order] == ["a_9", "a_10", "b_1", "b_2"]
