"""Who is ahead: runs of one configuration but for the seed are one row, and only rows scored in the same way are ranked."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from src.studies.configurations import configurations, one_a_seed, varying_keys
from src.studies.reading import Run
from src.studies.statistics.claims import Claim, Summary, claims_of_first, summarize
from src.studies.statistics.sentences import Measure

TARGET = "._target_"
MOST_REASON = 80  # characters of an error


@dataclass(frozen=True)
class Row:
    """One configuration; each seed is in one of the four lists of runs.

    Attributes:
        values: Those of its keys that not all runs share, or that its study varies.
        words: The same for people, by key; two values that differ read differently.
        runs: Those with a score, in the order of seeds.
        diverged: Those that diverged, which is a result too.
        failed: Those that failed for another reason, of which nothing follows.
        unfinished: Those that are running, interrupted or waiting to go on.
        best: Score of each seed at its best epoch, which is ranked.
        last: The same at its last epoch.
    """

    values: dict[str, Any]
    words: dict[str, str]
    runs: tuple[Run, ...]
    diverged: tuple[Run, ...]
    failed: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    best: Summary
    last: Summary

    @property
    def begun(self) -> tuple[Run, ...]:
        """One run of each seed, those with a score first."""
        return self.runs + self.diverged + self.failed + self.unfinished

    @property
    def seeds(self) -> str:
        """How many, in words: `5`, `2 of 5 trained`, or `3 of 5 finished` where the others may still finish."""
        if len(self.begun) == len(self.runs):
            return str(len(self.runs))
        return f"{len(self.runs)} of {len(self.begun)} {'trained' if self.diverged or self.failed else 'finished'}"

    @property
    def lost(self) -> str:
        """What became of the seeds without a score; empty where all have one."""
        told, total = [], len(self.begun)
        if self.diverged:
            told.append(f"{len(self.diverged)} of {total} seed{'s' * (total > 1)} diverged")
        if self.failed:
            reasons = dict.fromkeys(reason_of(run) for run in self.failed)
            told.append(f"{len(self.failed)} of {total} failed: {', '.join(reasons)}")
        if self.unfinished:
            told.append(f"{len(self.unfinished)} of {total} not finished yet")
        return "; ".join(told)

    @property
    def label(self) -> str:
        """What sets it apart, in words."""
        names = short_keys(self.words)
        return " ".join(f"{names[key]}={word}" for key, word in self.words.items()) or "the configuration"

    @property
    def title(self) -> str:
        """The label, with how many seeds trained where some diverged: what stands beside a mean of survivors."""
        return f"{self.label} ({self.seeds})" if self.diverged else self.label

    @property
    def scores(self) -> dict[int, float]:
        """Of each seed at the best epoch; NaN of one that diverged."""
        return {run.seed: run.score for run in self.runs} | {run.seed: math.nan for run in self.diverged}

    @property
    def rank(self) -> tuple[int, float]:
        """Rows of a lower one are ahead whatever their means: all seeds trained, a single seed, some diverged, no score."""
        if not self.runs:
            return 3, 0.0
        if self.diverged:
            return 2, len(self.diverged) / len(self.begun)
        return int(len(self.runs) < 2), 0.0


def reason_of(run: Run) -> str:
    """Why it failed: the class of the error, or what was written down instead."""
    error = str(run.facts.get("error") or "no reason known").partition("\n")[0]
    name = error.partition(":")[0]
    return name if name.isidentifier() else error[:MOST_REASON]


@dataclass(frozen=True)
class Table:
    """Rows that may be ranked together, best first, and each one's claim against the first.

    Attributes:
        measure: What they are ranked by.
        protocol: How all of them were scored.
        rows: Best mean first, then those that nothing puts ahead of others: see `Row.rank`.
        claims: Of the first row against each of the others, corrected for all pairs of rows: any might have come first.
    """

    measure: Measure
    protocol: dict[str, Any]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]


def standings(runs: Sequence[Run]) -> list[Table]:
    """A table for each way of scoring, the one with most scored rows first.

    A configuration has a row once a seed of it has a score, or has failed; one that is only running has none yet.

    Args:
        runs: All that were started, oldest first.
    """
    keys, tables = varying_keys(runs), []
    for (_, tag, mode), groups in configurations(runs).items():
        measure = Measure(tag, mode)
        rows = ranked([one_a_seed(group) for group in groups], keys, measure)
        if not rows:
            continue
        (claims,) = claims_of_first([[row.scores for row in rows]])
        tables.append(Table(measure, rows[0].begun[0].protocol, tuple(rows), tuple(claims)))
    return sorted(tables, key=lambda table: -sum(bool(row.runs) for row in table.rows))


def ranked(groups: Sequence[Sequence[Run]], keys: Sequence[str], measure: Measure) -> list[Row]:
    """A row of each group of seeds that has ended somehow, best first."""
    words = {key: short_values([run.config.get(key) for group in groups for run in group]) for key in keys}
    rows = [row_of(group, keys, words) for group in groups]
    sign = 1 if measure.mode == "min" else -1
    ended = [row for row in rows if len(row.unfinished) < len(row.begun)]
    return sorted(ended, key=lambda row: (row.rank, sign * row.best.mean if row.runs else 0.0))


def row_of(group: Sequence[Run], keys: Sequence[str], words: dict[str, dict[str, str]]) -> Row:
    """Of one run a seed."""
    scored, diverged = tuple(run for run in group if run.is_scored), tuple(run for run in group if run.has_diverged)
    others = [run for run in group if not run.is_scored and not run.has_diverged]
    failed = tuple(run for run in others if run.status == "failed")
    unfinished = tuple(run for run in others if run.status != "failed")
    values = {key: group[0].config.get(key) for key in keys}
    told = {key: words[key][repr(value)] for key, value in values.items()}
    best, last = (summarize([getattr(run, name) for run in scored]) for name in ("score", "last_score"))
    return Row(values, told, scored, diverged, failed, unfinished, best, last)


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each key for people: `model` for `model._target_`, else its last part, or the whole key where two would read the same."""
    names = {key: key.removesuffix(TARGET).rpartition(".")[2] for key in keys}
    return {key: name if list(names.values()).count(name) == 1 else key for key, name in names.items()}


def short_values(values: Iterable[Any]) -> dict[str, str]:
    """Each value of a key for people, by its `repr`: itself in full where two would read the same."""
    words = {repr(value): short_value(value) for value in values}
    return {full: word if list(words.values()).count(word) == 1 else full for full, word in words.items()}


def short_value(value: Any) -> str:
    """A list of channels with dashes, a class of ours or of torch by its name."""
    if isinstance(value, list):
        return "-".join(map(str, value))
    return str(value).rpartition(".")[2] if str(value).startswith(("src.", "torch.")) else str(value)
