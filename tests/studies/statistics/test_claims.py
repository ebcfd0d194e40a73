"""Claims about configurations, against scipy, textbook cases and simulated studies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from src.studies.statistics.claims import Claim, claims_of_first, compare_configurations, holm, power_of, seeds_needed, summarize

A = {0: 0.381, 1: 0.402, 2: 0.377, 3: 0.391, 4: 0.420}
B = {0: 0.352, 1: 0.391, 2: 0.349, 3: 0.388, 4: 0.371}


def values(scores: dict[int, float]) -> list[float]:
    return list(scores.values())


def test_pairs_are_scipys() -> None:
    claim = compare_configurations(A, B)
    expected = stats.ttest_rel(values(A), values(B))
    interval = expected.confidence_interval(0.95)
    assert (claim.low, claim.high, claim.p) == pytest.approx((interval.low, interval.high, expected[1]))
    assert claim.difference == pytest.approx(np.mean(values(A)) - np.mean(values(B)))
    assert "paired" in claim.method


@pytest.mark.parametrize("other", [{7: 0.35, 8: 0.39, 9: 0.36}, {0: 0.352, 1: 0.391, 2: 0.349, 9: 0.36}])
def test_seeds_that_differ_are_scipys_welch(other: dict[int, float]) -> None:
    claim = compare_configurations(A, other)
    expected = stats.ttest_ind(values(A), values(other), equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (claim.low, claim.high, claim.p) == pytest.approx((interval.low, interval.high, expected[1]))
    assert (claim.method, claim.num_a, claim.num_b) == ("Welch's t test", 5, len(other))


def test_where_some_seeds_failed_the_others_are_scipys_pairs() -> None:
    left = {seed: B[seed] for seed in (0, 2, 3)}
    expected = stats.ttest_rel([A[seed] for seed in left], values(left))
    interval = expected.confidence_interval(0.95)
    for claim, low in (
        (compare_configurations(A, left), interval.low),
        (compare_configurations(left, A), -interval.high),
    ):
        assert (claim.low, claim.p, claim.num_a, claim.num_b) == (pytest.approx(low), pytest.approx(expected[1]), 3, 3)


def test_scores_without_spread_are_no_certainty() -> None:
    """Networks that collapsed score the same with each seed; the differences of floats are equal but for rounding."""
    claim = compare_configurations({0: 0.11, 1: 0.21, 2: 0.41}, {0: 0.10, 1: 0.20, 2: 0.40})
    assert (claim.low, claim.high, claim.p, claim.holds, claim.seeds_needed) == (None, None, None, False, None)
    assert claim.difference == pytest.approx(0.01)


def test_one_seed_says_nothing() -> None:
    claim = compare_configurations({0: 0.9}, {0: 0.1})
    assert (claim.low, claim.high, claim.p, claim.seeds_needed, claim.holds) == (None, None, None, None, False)
    assert compare_configurations({}, {0: 0.1}).low is None


def test_nothing_is_claimed_from_the_survivors_of_seeds_that_diverged() -> None:
    """Whichever side they are on, and however far ahead or behind the others are."""
    survivors = {0: 0.99, 1: 0.98, 2: 0.97, 3: math.nan, 4: math.nan}
    for one, other, lost in ((survivors, B, (2, 0)), (B, survivors, (0, 2))):
        claim = compare_configurations(one, other)
        assert (claim.low, claim.high, claim.p, claim.holds, claim.seeds_needed) == (None, None, None, False, None)
        assert (claim.diverged_a, claim.diverged_b, {claim.num_a, claim.num_b}) == (*lost, {3, 5})
    assert holm([claim, claim_with(0.03)])[1].adjusted_p == 0.03  # what is no claim is no comparison


def test_equal_scores_differ_by_nothing() -> None:
    same = compare_configurations(A, A)
    assert (same.difference, same.low, same.high, same.p, same.seeds_needed) == (0, 0, 0, 1, None)


scores = st.dictionaries(st.integers(0, 9), st.floats(0, 1, allow_nan=False), min_size=2, max_size=8)


@given(scores, scores)
def test_the_other_way_round_is_the_same_claim_negated(a: dict[int, float], b: dict[int, float]) -> None:
    one, other = compare_configurations(a, b), compare_configurations(b, a)
    assert one.difference == -other.difference or not (one.num_a and one.num_b)
    if one.low is None or other.high is None:  # one seed that both have, or no spread
        assert (one.low, one.p, other.high, other.p) == (None, None, None, None)
    else:
        assert one.low == pytest.approx(-other.high)
        assert one.p == pytest.approx(other.p)


@given(scores)
def test_the_order_of_seeds_does_not_matter(a: dict[int, float]) -> None:
    turned = dict(reversed(a.items()))
    one, other = compare_configurations(a, B), compare_configurations(turned, B)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_a_summary_is_scipys() -> None:
    summary = summarize(values(A))
    interval = stats.ttest_1samp(values(A), 0).confidence_interval(0.95)
    assert (summary.mean, summary.deviation) == pytest.approx((np.mean(values(A)), np.std(values(A), ddof=1)))
    assert (summary.low, summary.high) == pytest.approx((interval.low, interval.high))
    assert summarize([0.4]).low is None
    assert (summarize([]).n, math.isnan(summarize([]).mean), summary.scores) == (0, True, tuple(values(A)))


def claim_with(p: float | None) -> Claim:
    return Claim("configurations", 0.1, 0.0, 0.2, p, 3, 3, "")


def test_holm_by_hand() -> None:
    """0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1 held up by the one before; the one without p is not counted."""
    claims = holm([claim_with(p) for p in (0.03, 0.01, None, 0.04, 0.02)])
    assert [claim.adjusted_p for claim in claims] == [pytest.approx(0.06), pytest.approx(0.04), None, *[pytest.approx(0.06)] * 2]
    assert [claim.holds for claim in claims] == [False, True, False, False, False]
    assert {claim.family for claim in claims if claim.p is not None} == {4}


def test_the_first_is_corrected_for_all_pairs() -> None:
    """Three rows make three pairs: Holm's factors are 3, 2, 1 in the order of the p values, which are scipy's."""
    rows = [A, B, {seed: score - 0.04 * seed for seed, score in B.items()}]
    p = {pair: float(stats.ttest_rel(values(rows[pair[0]]), values(rows[pair[1]]))[1]) for pair in ((0, 1), (0, 2), (1, 2))}
    highest, expected = 0.0, {}
    for factor, pair in zip((3, 2, 1), sorted(p, key=lambda pair: p[pair]), strict=True):
        expected[pair] = highest = max(highest, min(1.0, factor * p[pair]))
    (first,) = claims_of_first([rows])
    assert [claim.adjusted_p for claim in first] == pytest.approx([expected[0, 1], expected[0, 2]])
    assert [claim.family for claim in first] == [3, 3]
    alone, other = claims_of_first([rows[:2], rows[:1]])  # another family of a single row has no pair
    assert ([claim.family for claim in alone], other) == ([1], [])
    deviation = float(np.std(np.subtract(values(A), values(B)), ddof=1))
    assert alone[0].seeds_needed == seeds_needed(alone[0].difference, deviation, True)
    assert first[0].seeds_needed == seeds_needed(alone[0].difference, deviation, True, 1 - 0.05 / 3)


@pytest.mark.parametrize(("num_rows", "repetitions"), [(4, 600), (12, 200)])
def test_a_best_of_equals_beats_none_in_95_of_100_studies(num_rows: int, repetitions: int) -> None:
    """The best is chosen by the scores that it is compared by: corrected for its own pairs alone, 8 and 13 in 100 are wrong."""
    generator = np.random.default_rng(num_rows)
    wrong = 0
    for _ in range(repetitions):
        scores = generator.normal(0.4, 0.03, (num_rows, 5)) + generator.normal(0, 0.02, 5)  # some seeds are better for all
        ranked = [dict(enumerate(row.tolist())) for row in scores[np.argsort(-scores.mean(1))]]
        wrong += any(claim.holds for claim in claims_of_first([ranked])[0])
    print(f"a false winner in {wrong} of {repetitions}")
    assert wrong / repetitions <= 0.05 + 1.65 * math.sqrt(0.05 * 0.95 / repetitions)


def test_power_by_table() -> None:
    """Cohen (1988): d = 0.5 needs 64 a group and 34 pairs, d = 0.8 needs 26, for a power of 0.8 at 5 %."""
    assert seeds_needed(0.5, 1.0, is_paired=False) == 64
    assert seeds_needed(0.5, 1.0, is_paired=True) == 34
    assert seeds_needed(0.8, 1.0, is_paired=False) == 26
    assert power_of(0.5, 1.0, 64, is_paired=False) == pytest.approx(0.8015, abs=0.0005)
    assert seeds_needed(0.0, 1.0, is_paired=True) is None
    assert seeds_needed(0.001, 1.0, is_paired=True) is None


@pytest.mark.parametrize(("is_paired", "num_seeds"), [(True, 3), (True, 5), (False, 3), (False, 5)])
def test_intervals_cover_zero_in_93_to_97_of_100_studies_without_a_difference(is_paired: bool, num_seeds: int) -> None:
    """Seed noise of each run, and a clip whose correlated frames move the scores of all runs together."""
    generator = np.random.default_rng(num_seeds)
    covered = 0
    for _ in range(1000):
        clip = stats.norm.rvs(scale=0.05, random_state=generator)
        first = {seed: 0.4 + clip + generator.normal(scale=0.03) for seed in range(num_seeds)}
        shift = 0 if is_paired else 100
        second = {seed + shift: 0.4 + clip + generator.normal(scale=0.03) for seed in range(num_seeds)}
        claim = compare_configurations(first, second)
        assert claim.low is not None
        assert claim.high is not None
        covered += claim.low <= 0 <= claim.high
    print(f"{covered} of 1000 cover zero")
    assert 930 <= covered <= 970


@pytest.mark.parametrize("family", [1, 66])
def test_the_promised_power_is_kept(family: int) -> None:
    """Of one comparison, and of one among many that are none, whose p values are large, so that Holm's factor is the family's."""
    effect, deviation = 0.03, 0.03
    spread = deviation * math.sqrt(2)
    planned = Claim("configurations", effect, 0.0, 0.0, 0.5, 3, 3, "", deviation=spread, is_paired=True, family=family)
    promised = planned.seeds_needed
    assert promised is not None
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(1000):
        first = {seed: float(score) for seed, score in enumerate(generator.normal(0.4 + effect, deviation, promised))}
        second = {seed: float(score) for seed, score in enumerate(generator.normal(0.4, deviation, promised))}
        claim = compare_configurations(first, second)
        found += holm([claim, *[claim_with(0.9)] * (family - 1)])[0].holds
    print(f"found {found} times in 1000 with {promised} seeds a side, among {family}")
    assert 0.77 <= found / 1000 <= 0.86
