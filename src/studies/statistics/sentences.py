"""Claims in words: who beats whom by how much, or why nothing can be said."""

from dataclasses import dataclass

from src.studies.statistics.claims import POWER, SEEDS_OF_INTERVAL, Claim, Summary
from src.tags import Tag, describe_tag


@dataclass(frozen=True)
class Measure:
    """What is compared.

    Attributes:
        tag: As in metrics.csv.
        mode: `max` or `min`: which is better.
    """

    tag: str
    mode: str

    @property
    def described(self) -> Tag:
        """Unit, range and meaning."""
        return describe_tag(self.tag)

    @property
    def scale(self) -> float:
        """A stored score times this is in the unit that people read."""
        return self.described.scale

    def clip(self, value: float) -> float:
        """The value, or the end of the range that it lies beyond."""
        return min(max(value, self.described.low), self.described.high)

    def clip_difference(self, value: float) -> float:
        """The same of a difference of two values."""
        width = self.described.high - self.described.low
        return min(max(value, -width), width)

    def number(self, value: float) -> str:
        """In the unit that people read."""
        return self.described.number(value)

    def amount(self, value: float) -> str:
        """With its unit."""
        return self.described.amount(value)

    def interval(self, summary: Summary) -> str:
        """Of a mean, within the range; of few seeds the scores themselves; a dash with one."""
        if summary.low is None or summary.high is None:
            return "-"
        if summary.n < SEEDS_OF_INTERVAL:
            return ", ".join(map(self.number, summary.scores))
        return f"{self.number(self.clip(summary.low))} to {self.number(self.clip(summary.high))}"


MIOU = Measure("val/miou", "max")


def say(claim: Claim, a: str, b: str, measure: Measure = MIOU) -> str:
    """One sentence on `a` against `b`."""
    if claim.low is None or claim.high is None:
        return f"Nothing can be said about {a} and {b}: {_why_nothing(claim, a, b)}."
    if claim.holds and claim.difference != 0:
        is_ahead = (claim.difference > 0) == (measure.mode == "max")
        names = (a, b) if is_ahead else (b, a)
        low, high = sorted((abs(claim.low), abs(claim.high)))
        if claim.low <= 0 <= claim.high:
            low = 0.0
        found = f"{names[0]} beats {names[1]} by {measure.amount(abs(claim.difference))}"
        return f"{found} ({_interval(claim, low, high, measure)}; {_basis(claim)}).{_family(claim)}{_limits(claim)}"
    interval = _interval(claim, claim.low, claim.high, measure)
    told = f"{a} and {b} are not distinguishable with {_basis(claim)} (difference {measure.amount(claim.difference)}, {interval})"
    return f"{told}{_needed(claim)}.{_family(claim)}{_limits(claim)}"


def _why_nothing(claim: Claim, a: str, b: str) -> str:
    sides = [(a, claim.num_a, claim.diverged_a), (b, claim.num_b, claim.diverged_b)]
    if diverged := [f"{lost} of {num + lost} seeds of {name} diverged" for name, num, lost in sides if lost]:
        return f"{' and '.join(diverged)}, and those that survived do not speak for a configuration"
    fewest = min(claim.num_a, claim.num_b)
    if claim.kind == "checkpoints":
        return f"{fewest} frame{'s are' if fewest != 1 else ' is'} too few to know how much scores vary from frame to frame"
    if fewest > 1:
        return "they differ by the same with each seed, as networks that learn nothing do, or copies of runs"
    seeds = "a score of only one seed" if fewest else "no score"
    return f"there is {seeds} of at least one of them, and a claim rests on several"


def _interval(claim: Claim, low: float, high: float, measure: Measure) -> str:
    low, high = measure.clip_difference(low), measure.clip_difference(high)
    return f"{claim.confidence:.0%}: {measure.number(low)} to {measure.number(high)}".replace("%", " %", 1)


def _basis(claim: Claim) -> str:
    noun = "seeds" if claim.kind == "configurations" else "frames"
    if claim.num_a == claim.num_b:
        return f"{claim.num_a} {noun}{' each' if claim.kind == 'configurations' else ''}"
    return f"{claim.num_a} and {claim.num_b} {noun}"


def _needed(claim: Claim) -> str:
    if claim.kind != "configurations" or claim.seeds_needed is None:
        return ""
    if claim.seeds_needed <= min(claim.num_a, claim.num_b):
        return ": more seeds would be needed"  # the correction for several claims, or chance, kept it from showing
    return f": about {claim.seeds_needed} seeds each would be needed to find it {POWER:.0%} of the time, if it is real".replace(
        "%", " %", 1
    )


def _family(claim: Claim) -> str:
    if claim.adjusted_p is None or claim.family < 2:
        return ""
    said = f" p = {claim.adjusted_p:.2g} after Holm's correction for {claim.family} comparisons."
    excludes = claim.low is not None and claim.high is not None and not claim.low <= 0 <= claim.high
    return said + (" The interval, which is not corrected, excludes zero." if excludes and not claim.holds else "")


def _limits(claim: Claim) -> str:
    if claim.kind == "configurations":
        return ""
    return " This speaks of these two checkpoints on these frames, not of the configurations that they came from."
