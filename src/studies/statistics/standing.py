"""Who is ahead: runs of one configuration but for the seed are one row, and only rows scored in the same way are ranked."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config import is_harmless
from src.studies.reading import Run
from src.studies.statistics.claims import Claim, Summary, claims_of_first, summarize
from src.studies.statistics.sentences import Measure

TARGET = "._target_"
ASKED = re.compile(r"study\.(?:crossed|paired)\.(.+)")


@dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
        values: Those of its keys that not all rows share, or that its study varies.
        words: The same for people, by key; two values that differ read differently.
        runs: The newest finished run of each seed, in the order of seeds.
        best: Score of each seed at its best epoch, which is ranked.
        last: The same at its last epoch.
        lost: How many more seeds have begun a run and have no score: it failed, or is not finished yet.
    """

    values: dict[str, Any]
    words: dict[str, str]
    runs: tuple[Run, ...]
    best: Summary
    last: Summary
    lost: int

    @property
    def seeds(self) -> str:
        """How many, in words: `5`, or `3 of 5` where two have no score."""
        return f"{self.best.n} of {self.best.n + self.lost}" if self.lost else str(self.best.n)

    @property
    def label(self) -> str:
        """What sets it apart, in words."""
        names = short_keys(self.words)
        return " ".join(f"{names[key]}={word}" for key, word in self.words.items()) or "the configuration"

    @property
    def scores(self) -> dict[int, float]:
        """Of each seed, at the best epoch."""
        return {run.seed: run.score for run in self.runs}


@dataclass(frozen=True)
class Table:
    """Rows that may be ranked together, best first, and each one's claim against the first.

    Attributes:
        measure: What they are ranked by.
        protocol: How all of them were scored.
        rows: Best mean first, then those of a single seed, by which nobody is ahead of anybody.
        claims: Of the first row against each of the others, corrected for all pairs of rows: any might have come first.
    """

    measure: Measure
    protocol: dict[str, Any]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]


def standings(runs: Sequence[Run]) -> list[Table]:
    """A table for each way of scoring, the one with most rows first; only finished runs with a score are in one."""
    usable = [run for run in runs if is_scored(run)]
    keys, lost = list(dict.fromkeys([*swept_keys(usable), *asked_keys(usable)])), seeds_lost(runs)
    kinds: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in usable:
        kinds[run.fingerprint, str(run.config.get("monitor.tag")), str(run.config.get("monitor.mode"))].append(run)
    tables = []
    for (_, tag, mode), members in kinds.items():
        measure = Measure(tag, mode)
        rows = ranked(members, keys, measure, lost)
        (claims,) = claims_of_first([[row.scores for row in rows]])
        tables.append(Table(measure, members[0].protocol, tuple(rows), tuple(claims)))
    return sorted(tables, key=lambda table: -len(table.rows))


def seeds_lost(runs: Sequence[Run]) -> dict[Path, int]:
    """By each run's folder: how many seeds of its configuration have begun a run and have no score."""
    keys, begun, scored = swept_keys(runs), defaultdict(set), defaultdict(set)
    for run in runs:
        (scored if is_scored(run) else begun)[identity(run, keys)].add(run.seed)
    return {run.folder: len(begun[identity(run, keys)] - scored[identity(run, keys)]) for run in runs}


def is_scored(run: Run) -> bool:
    """Whether it may stand in a table."""
    return run.status == "finished" and math.isfinite(run.score)


def identity(run: Run, keys: Sequence[str]) -> str:
    """What tells one configuration from another, these being the keys that vary."""
    return repr([run.config.get(key) for key in keys])


def ranked(runs: Sequence[Run], keys: Sequence[str], measure: Measure, lost: Mapping[Path, int]) -> list[Row]:
    """Rows of the runs, best mean first."""
    words = {key: short_values([run.config.get(key) for run in runs]) for key in keys}
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:  # oldest first, so that a newer run of the same seed takes the place of an older one
        groups[identity(run, keys)][run.seed] = run
    rows = []
    for group in groups.values():
        members = tuple(group[seed] for seed in sorted(group))
        values = {key: members[0].config.get(key) for key in keys}
        best, last = (summarize([getattr(run, name) for run in members]) for name in ("score", "last_score"))
        told = {key: words[key][repr(value)] for key, value in values.items()}
        rows.append(Row(values, told, members, best, last, lost[members[0].folder]))
    sign = 1 if measure.mode == "min" else -1
    return sorted(rows, key=lambda row: (row.best.n < 2, sign * row.best.mean))


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Keys that alter results and are not the same in all runs, without the seed."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: {repr(run.config.get(key)) for run in runs} for key in keys}
    return [key for key in keys if len(values[key]) > 1 and key != "seed" and not is_harmless(key)]


def asked_keys(runs: Sequence[Run]) -> list[str]:
    """Those to which a study gives several values, though runs of one alone may have a score yet."""
    asked = [(ASKED.match(key), key, run.config) for run in runs for key in run.config]
    return [found[1] for found, key, config in asked if found and found[1] in config and len(config[key] or []) > 1]


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
