"""Claims about two checkpoints: correlated frames, and what a bootstrap over single images would have said."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from src.studies.statistics.frames import block_length, compare_checkpoints, correction, correlation, miou_of

PIXELS = 400
CLIPS = {
    "one clip as CamVid's val": ([101], 0.9),
    "two clips as CamVid's test": ([124, 109], 0.9),
    "independent frames": ([120], 0.0),
    "some memory": ([60, 41], 0.6),
}


def remembered(generator: np.random.Generator, memory: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """AR(1) along the first axis, of unit variance from its start."""
    noise = generator.normal(size=(shape[0] + 200, *shape[1:])) * np.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise, axis=0))[200:]


def two_checkpoints(generator: np.random.Generator, sizes: list[int], memory: float) -> list[NDArray[np.int64]]:
    """Confusion matrices of two checkpoints equally good on all there is, on short clips of it; three classes."""
    found = []
    for size in sizes:
        shares = 1 / (1 + np.exp(-remembered(generator, memory, (size, 3))))
        pixels = np.round(PIXELS * shares / shares.sum(1, keepdims=True)).astype(int) + 1
        common = remembered(generator, memory, (size, 1, 1)) * 0.5
        own = remembered(generator, memory, (size, 2, 3)) * 0.5
        right = 1 / (1 + np.exp(-(1.0 + common + own)))
        confusion = np.zeros((size, 2, 3, 3), int)
        for truth in range(3):
            hits = np.round(pixels[:, None, truth] * right[:, :, truth]).astype(int)
            confusion[:, :, truth, truth] = hits
            confusion[:, :, truth, (truth + 1) % 3] = pixels[:, None, truth] - hits
        found.append(confusion)
    both = np.concatenate(found)
    return [both[:, 0], both[:, 1]]


def names(sizes: list[int]) -> list[str]:
    return [f"clip {number}" for number, size in enumerate(sizes) for _ in range(size)]


def naive_interval(a: NDArray[np.int64], b: NDArray[np.int64], generator: np.random.Generator) -> tuple[float, float]:
    """The mistake: single images resampled as if they were independent."""
    drawn = generator.integers(0, len(a), (200, len(a)))
    weights = np.zeros((200, len(a)))
    np.add.at(weights, (np.arange(200)[:, None], drawn), 1)
    sums = [np.tensordot(weights, m.astype(float), axes=1) for m in (a, b)]
    counts = [np.stack([np.diagonal(s, axis1=1, axis2=2), s.sum(2), s.sum(1)], axis=1) for s in sums]
    low, high = np.quantile(miou_of(counts[0]) - miou_of(counts[1]), [0.025, 0.975])
    return float(low), float(high)


def test_the_difference_is_the_one_counted_by_hand() -> None:
    """IoU 3/5 and 4/6 against 4/5 and 4/5: classes 0 and 1 are there, class 2 is not, and is in no mean."""
    a = np.array([[[3, 1, 0], [1, 4, 0], [0, 0, 0]]])
    b = np.array([[[4, 0, 0], [1, 4, 0], [0, 0, 0]]])
    claim = compare_checkpoints(np.repeat(a, 8, 0), np.repeat(b, 8, 0), ["clip"] * 8)
    assert claim.difference == pytest.approx((3 / 5 + 4 / 6) / 2 - (4 / 5 + 4 / 5) / 2)
    assert (claim.low, claim.high) == (None, None)  # no frame differs from another, which says nothing of how much frames do
    assert claim.kind == "checkpoints"


def test_the_same_checkpoint_twice_differs_by_nothing() -> None:
    a, _ = two_checkpoints(np.random.default_rng(0), [101], 0.9)
    claim = compare_checkpoints(a, a, names([101]))
    assert (claim.difference, claim.low, claim.high, claim.holds) == (0, 0, 0, False)


def test_the_other_way_round_is_negated_and_every_run_gives_the_same() -> None:
    a, b = two_checkpoints(np.random.default_rng(1), [60, 41], 0.9)
    claim, again, back = (compare_checkpoints(*pair, names([60, 41])) for pair in ((a, b), (a, b), (b, a)))
    assert claim == again
    assert (claim.low, claim.high) == pytest.approx((-(back.high or 0), -(back.low or 0)))


def test_frames_that_are_alone_in_their_video_are_independent_frames() -> None:
    """As of a data set whose file names tell no video: what one video of independent frames would say."""
    a, b = two_checkpoints(np.random.default_rng(4), [60], 0.0)
    together, alone = compare_checkpoints(a, b, ["clip"] * 60), compare_checkpoints(a, b, [str(n) for n in range(60)])
    assert together.low is not None
    assert (alone.low, alone.high, alone.p) == (together.low, together.high, together.p)
    mixed = compare_checkpoints(a, b, [*["clip"] * 30, *(str(n) for n in range(30))])
    assert mixed.low is not None
    assert mixed.high is not None
    assert mixed.high - mixed.low == pytest.approx((together.high or 0) - together.low, rel=0.25)
    for few in (1, 3):
        claim = compare_checkpoints(a[:few], b[:few], [str(n) for n in range(few)])
        assert (claim.low, claim.high, claim.p, claim.holds) == (None, None, None, False)


def test_frames_must_be_the_same() -> None:
    a, b = two_checkpoints(np.random.default_rng(1), [20], 0.9)
    with pytest.raises(ValueError, match="20, 19 frames and 20 names"):
        compare_checkpoints(a, b[:-1], names([20]))


def test_memory_is_found_and_blocks_suit_it() -> None:
    generator = np.random.default_rng(2)
    for memory in (0.0, 0.6, 0.9):
        found = [correlation([remembered(generator, memory, (101,))]) for _ in range(200)]
        assert np.mean(found) == pytest.approx(max(memory, 0.03), abs=0.03)
    assert block_length(101, 0.0) == 1
    assert 15 <= block_length(101, 0.9) <= 25
    assert correction([101], [1], 0.0) == pytest.approx(np.sqrt(101 / 100))


def coverage(clip: str, repetitions: int) -> tuple[float, float]:
    """Share of intervals that hold the true difference, zero: of the blocks, and of single images."""
    sizes, memory = CLIPS[clip]
    generator = np.random.default_rng(3)
    ours = naive = 0
    for _ in range(repetitions):
        a, b = two_checkpoints(generator, sizes, memory)
        claim = compare_checkpoints(a, b, names(sizes))
        assert claim.low is not None
        assert claim.high is not None
        ours += claim.low <= 0 <= claim.high
        low, high = naive_interval(a, b, generator)
        naive += low <= 0 <= high
    print(f"{clip}: blocks cover zero in {ours / repetitions:.1%}, single images in {naive / repetitions:.1%}")
    return ours / repetitions, naive / repetitions


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_intervals_cover_zero_in_93_to_97_of_100_pairs_without_a_difference(clip: str) -> None:
    ours, naive = coverage(clip, 1000)
    assert 0.93 <= ours <= 0.97
    assert naive < 0.75 or CLIPS[clip][1] < 0.9


def test_single_images_are_far_too_sure_of_themselves() -> None:
    ours, naive = coverage("one clip as CamVid's val", 60)
    assert ours > 0.85
    assert naive < 0.75
