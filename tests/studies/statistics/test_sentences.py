"""What is said of a claim."""

import math
from dataclasses import replace

from src.studies.statistics.claims import Claim, compare_configurations, holm, summarize
from src.studies.statistics.sentences import Measure, say

FOUND = Claim("configurations", 0.018, 0.006, 0.030, 0.01, 5, 5, "Welch's t test", deviation=0.008)
OPEN = Claim("configurations", 0.018, -0.010, 0.046, 0.12, 3, 3, "Welch's t test", deviation=0.0144)


def test_a_difference_that_was_found() -> None:
    assert say(FOUND, "kaiming", "normal") == "kaiming beats normal by 1.8 points (95 %: 0.6 to 3.0; 5 seeds each)."


def test_the_better_one_is_named_first_whichever_way_it_was_compared() -> None:
    turned = replace(FOUND, difference=-0.018, low=-0.030, high=-0.006)
    assert say(turned, "normal", "kaiming") == say(FOUND, "kaiming", "normal")
    loss = Measure("val/loss", "min")
    assert (
        say(FOUND, "normal", "kaiming", loss) == "kaiming beats normal by 0.018 of val/loss (95 %: 0.006 to 0.030; 5 seeds each)."
    )


def test_what_cannot_be_told_apart_says_how_many_seeds_would() -> None:
    said = "kaiming and normal are not distinguishable with 3 seeds each (difference 1.8 points, 95 %: -1.0 to 4.6): "
    assert (
        say(OPEN, "kaiming", "normal") == said + "about 12 seeds each would be needed to find it 80 % of the time, if it is real."
    )


def test_one_seed_says_that_nothing_can_be_said() -> None:
    said = say(compare_configurations({0: 0.9}, {0: 0.1}), "kaiming", "normal")
    assert said.startswith("Nothing can be said about kaiming and normal: there is a score of only one seed")
    assert "0.8" not in said
    assert "80" not in said


def test_seeds_that_diverged_say_why_nothing_can_be_said() -> None:
    claim = compare_configurations({0: 0.9, 1: 0.8, 2: math.nan}, {0: 0.1, 1: 0.2, 2: 0.1})
    why = "1 of 3 seeds of kaiming diverged, and those that survived do not speak for a configuration"
    assert say(claim, "kaiming", "normal") == f"Nothing can be said about kaiming and normal: {why}."


def test_intervals_stay_within_the_possible() -> None:
    """Of 0.97, 0.99, 0.85 and 0.99 the t interval ends at 105.7; of 0.2 and 0.99 it is -442.4 to 561.4."""
    miou, loss = Measure("val/miou", "max"), Measure("val/loss", "min")
    high = summarize([0.97, 0.99, 0.85, 0.99])
    assert high.high is not None
    assert high.high > 1
    assert miou.interval(high) == "84.3 to 100.0"
    assert miou.interval(summarize([0.02, 0.0, 0.01, 0.15])).startswith("0.0 to ")
    assert miou.interval(summarize([0.2, 0.99])) == "20.0, 99.0"
    assert miou.interval(summarize([0.2, 0.99, 0.5])) == "20.0, 99.0, 50.0"
    assert miou.interval(summarize([0.2])) == "-"
    assert loss.interval(summarize([1.97, 1.99, 1.85, 1.99])) == "1.843 to 2.057"  # may be above one
    wide = compare_configurations({0: 0.9, 1: 0.2}, {0: 0.1, 1: 0.3})
    assert wide.low is not None
    assert wide.low < -1
    assert "95 %: -100.0 to 100.0" in say(wide, "kaiming", "normal")


def test_scores_that_do_not_vary_say_nothing() -> None:
    said = say(compare_configurations({0: 0.9, 1: 0.9}, {0: 0.1, 1: 0.1}), "kaiming", "normal")
    assert said.startswith("Nothing can be said about kaiming and normal: they differ by the same with each seed")


def test_a_correction_is_said_and_decides() -> None:
    first, second = holm([replace(FOUND, p=0.03), replace(FOUND, p=0.04)])
    said = say(first, "kaiming", "normal")
    assert "not distinguishable" in said
    assert "p = 0.06 after Holm's correction for 2 comparisons" in said
    assert "which is not corrected, excludes zero" in said
    assert not second.holds


def test_checkpoints_are_not_configurations() -> None:
    said = say(replace(FOUND, kind="checkpoints", num_a=101, num_b=101), "run 2", "run 0")
    assert "101 frames)" in said
    assert "not of the configurations" in said
    said = say(replace(FOUND, kind="checkpoints", low=None, high=None, num_a=1, num_b=1), "run 2", "run 0")
    assert "1 frame is too few to know how much scores vary" in said
