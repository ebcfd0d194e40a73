"""What may be said about two configurations: it rests on seeds, never on one run of each."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

POWER = 0.8  # with which `seeds_needed` would find a difference as large as the one observed
MOST_SEEDS = 1000
NO_SPREAD = 1e-12  # of scores; less is rounding
SEEDS_OF_INTERVAL = 4  # fewer are shown one by one: the t interval of two is thirteen deviations wide


@dataclass(frozen=True)
class Summary:
    """Scores of one configuration; the mean is NaN without any, deviation and interval are None with one seed."""

    mean: float
    deviation: float | None
    n: int
    low: float | None
    high: float | None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A difference between two, with what is known of its size.

    Attributes:
        kind: `configurations` (rests on seeds) or `checkpoints` (rests on frames, and speaks of these two files only).
        difference: Score of the first less that of the second, in the score's own unit.
        low: Lower end of the interval; None where nothing can be said.
        high: Upper end.
        p: Two-sided, that of a difference of zero.
        num_a: Seeds (or frames) of the first.
        num_b: Those of the second.
        method: How the interval was found; why there is none.
        confidence: Of the interval.
        deviation: Of the differences where seeds pair, else of each side's scores; None where nothing can be said, and of frames.
        is_paired: Whether seeds pair.
        adjusted_p: After Holm's correction over `family` claims.
        family: How many claims were made together.
        diverged_a: Further seeds of the first, which diverged; where there are any, nothing can be said.
        diverged_b: Those of the second.
    """

    kind: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    num_a: int
    num_b: int
    method: str
    confidence: float = 0.95
    deviation: float | None = None
    is_paired: bool = False
    adjusted_p: float | None = None
    family: int = 1
    diverged_a: int = 0
    diverged_b: int = 0

    @property
    def holds(self) -> bool:
        """Whether the difference is distinguishable from zero, after the correction where there was one."""
        p = self.p if self.adjusted_p is None else self.adjusted_p
        return p is not None and p < 1 - self.confidence

    @property
    def seeds_needed(self) -> int | None:
        """About how many a side would find a difference of this size with a power of POWER; None if it cannot be told.

        At the level that Holm asks of the first of the family, so that they are rather too many than too few.
        """
        if self.deviation is None:
            return None
        return seeds_needed(abs(self.difference), self.deviation, self.is_paired, 1 - (1 - self.confidence) / self.family)


def summarize(scores: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean, deviation (n - 1) and the t interval of the mean; scores that are not finite make the mean NaN."""
    values = np.asarray(scores, dtype=float)
    mean, n, each = float(values.mean()) if len(values) else math.nan, len(values), tuple(values.tolist())
    if n < 2 or not math.isfinite(mean):
        return Summary(mean, None, n, None, None, each)
    deviation = float(values.std(ddof=1))
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n)
    return Summary(mean, deviation, n, mean - reach, mean + reach, each)


def compare_configurations(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> Claim:
    """The difference of two configurations, `a` less `b`, from the scores of their seeds.

    Paired by seed (t test of the differences) where one side has all seeds of the other, as where some runs failed: it rests on
    those that both have. Else Welch's t test. Whether they pair is decided by the seeds alone, never by the scores. Where a seed
    of either diverged there is no claim: the seeds that survived are not a sample of the configuration.

    Args:
        a: Score of each seed; NaN of one that diverged.
        b: The same of the other configuration.
        confidence: Of the interval.
    """
    diverged = [sum(not math.isfinite(score) for score in side.values()) for side in (a, b)]
    if any(diverged):
        counts = len(a) - diverged[0], len(b) - diverged[1]
        told = Claim("configurations", math.nan, None, None, None, *counts, "none: seeds diverged", confidence)
        return replace(told, diverged_a=diverged[0], diverged_b=diverged[1])
    is_paired = a.keys() <= b.keys() or b.keys() <= a.keys()
    if is_paired:
        shared = sorted(a.keys() & b.keys())
        a, b = {seed: a[seed] for seed in shared}, {seed: b[seed] for seed in shared}
    first, second = np.array(list(a.values())), np.array(list(b.values()))
    counts = (len(first), len(second))
    difference = float(first.mean() - second.mean()) if min(counts) else math.nan
    if min(counts) < 2:
        return Claim("configurations", difference, None, None, None, *counts, "none: one seed is not enough", confidence)
    if is_paired:
        method, freedom = "t test, paired by seed", len(first) - 1.0
        deviation = float((first - second).std(ddof=1))
        error = deviation / math.sqrt(len(first))
    else:
        shares = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
        method, error = "Welch's t test", math.sqrt(sum(shares))
        deviation = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
        parts = sum(share**2 / (n - 1) for share, n in zip(shares, counts, strict=True))
        freedom = sum(shares) ** 2 / parts if parts > 0 else sum(counts) - 2.0
    if error < NO_SPREAD < abs(difference):
        return Claim("configurations", difference, None, None, None, *counts, "none: scores do not vary", confidence)
    low, high, p = t_interval(difference, error, freedom, confidence)
    return Claim("configurations", difference, low, high, p, *counts, method, confidence, deviation, is_paired)


def t_interval(difference: float, error: float, freedom: float, confidence: float) -> tuple[float, float, float]:
    """Interval of a difference with this standard error, and the p value of zero; without an error only of no difference."""
    if error < NO_SPREAD:
        return difference, difference, 1.0
    reach = float(special.stdtrit(freedom, (1 + confidence) / 2)) * error  # scipy.stats.t says the same, ten times slower
    return difference - reach, difference + reach, float(2 * special.stdtr(freedom, -abs(difference) / error))


def power_of(effect: float, deviation: float, n: int, is_paired: bool, confidence: float = 0.95) -> float:
    """Chance that `n` seeds a side find a difference of size `effect`.

    `deviation` is that of the differences where seeds pair, else that of each side's scores.
    """
    freedom = n - 1 if is_paired else 2 * n - 2
    shift = effect / deviation * math.sqrt(n if is_paired else n / 2)
    limit = stats.t.ppf((1 + confidence) / 2, freedom)
    return float(stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift))


def seeds_needed(effect: float, deviation: float, is_paired: bool, confidence: float = 0.95) -> int | None:
    """Fewest seeds a side that find `effect` with a power of POWER; None if MOST_SEEDS do not, or there is no spread."""
    if not (effect > 0 and deviation > 0) or power_of(effect, deviation, MOST_SEEDS, is_paired, confidence) < POWER:
        return None
    enough, too_few = MOST_SEEDS, 1
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if power_of(effect, deviation, middle, is_paired, confidence) < POWER:
            too_few = middle
        else:
            enough = middle
    return enough


def claims_of_first(families: Sequence[Sequence[Mapping[int, float]]]) -> list[list[Claim]]:
    """For each family of ranked configurations, the first one against each other one.

    Corrected together, for all pairs of every family: the first was chosen by the very scores that it is compared by, so that
    any pair might have been the one that is told.
    """
    pairs = [(number, *pair) for number, ranked in enumerate(families) for pair in itertools.combinations(range(len(ranked)), 2)]
    claims = holm([compare_configurations(families[number][one], families[number][other]) for number, one, other in pairs])
    told: list[list[Claim]] = [[] for _ in families]
    for (number, one, _), claim in zip(pairs, claims, strict=True):
        if one == 0:
            told[number].append(claim)
    return told


def holm(claims: Sequence[Claim]) -> list[Claim]:
    """The same claims with p values corrected for having been made together (Holm 1979); those without one are not counted."""
    order = sorted((i for i, claim in enumerate(claims) if claim.p is not None), key=lambda i: claims[i].p or 0.0)
    corrected, highest = list(claims), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (claims[index].p or 0.0)))
        corrected[index] = replace(claims[index], adjusted_p=highest, family=len(order))
    return corrected
