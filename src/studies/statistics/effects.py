"""What a swept key does, with all that moves with it: its best value against each other one, the other keys held the same."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from src.studies.statistics.claims import Claim, claims_of_first
from src.studies.statistics.standing import TARGET, Row, Table, short_keys


@dataclass(frozen=True)
class Effect:
    """A claim on two values of a key.

    Attributes:
        key: As in the configuration.
        name: Of the key, for people.
        along: Names of the keys that move with it, so that the claim is on all of them together.
        best: The value with the best mean.
        other: Another one.
        contexts: Combinations of the other keys that the means are over: all those in which every value of the key occurs.
        claim: It rests on the seeds that all these rows have; a seed's score is its mean over the contexts.
    """

    key: str
    name: str
    along: tuple[str, ...]
    best: str
    other: str
    contexts: int
    claim: Claim

    @property
    def bundle(self) -> str:
        """Its name, and the names of those that move with it."""
        return f"{self.name} (with {', '.join(self.along)})" if self.along else self.name


def effects(table: Table) -> list[Effect]:
    """Of each key that has several values in one context at least, the key with the largest effect first.

    Keys that only vary together have one effect. Corrected together, for all pairs of values of all keys. None of a key that all
    others follow: the table itself says it then.
    """
    names = short_keys(table.rows[0].words)
    found = {key: scores_of(table, key) for key in leaders(table) if followers(table, key) != varying(table)}
    claims = claims_of_first([list(scores.values()) for scores, _ in found.values()])
    told: list[list[Effect]] = []
    for (key, (scores, contexts)), own in zip(found.items(), claims, strict=True):
        along = tuple(names[other] for other in followers(table, key) if other != key)
        values = list(scores)
        others = zip(values[1:], own, strict=True)
        told.append([Effect(key, names[key], along, values[0], other, contexts, claim) for other, claim in others])
    told = [sorted(own, key=lambda effect: abs(effect.claim.difference)) for own in told if own]
    return [effect for own in sorted(told, key=lambda own: -abs(own[-1].claim.difference)) for effect in own]


def silent_keys(table: Table, found: Sequence[Effect]) -> list[str]:
    """Names of the keys that vary and have no effect, nor move with one that has; none where all follow one key."""
    if any(followers(table, key) == varying(table) for key in leaders(table)):
        return []
    heard = {name for effect in found for name in followers(table, effect.key)}
    heard |= {name for key in leaders(table) if fragile_rows(table, key) for name in followers(table, key)}
    names = short_keys(table.rows[0].words)
    return [names[key] for key in varying(table) if key not in heard]


def fragile(table: Table) -> list[str]:
    """A sentence for each value that is compared with no other, as seeds diverged with it where others trained."""
    names, told = short_keys(table.rows[0].words), []
    for key in leaders(table):
        if followers(table, key) == varying(table):
            continue  # its rows say it
        for value, rows in fragile_rows(table, key).items():
            lost, begun = (sum(len(getattr(row, name)) for row in rows) for name in ("diverged", "begun"))
            where = "; ".join(row.label for row in rows)
            seeds = f"{lost} of {begun} seed{'s' * (begun > 1)} diverged where another value trained"
            told.append(f"{names[key]}={value} is compared with no other value: {seeds} ({where}).")
    return told


def fragile_rows(table: Table, key: str) -> dict[str, list[Row]]:
    """By value of the key, the rows of which seeds diverged where another value trained with all of its seeds.

    Means over what is left would put such a value ahead on the strength of its survivors.
    """
    found: dict[str, list[Row]] = defaultdict(list)
    for rows in contexts_of(table, key).values():
        if any(row.runs and not row.diverged for row in rows.values()):
            for value, row in rows.items():
                if row.diverged:
                    found[value].append(row)
    return dict(found)


def contexts_of(table: Table, key: str) -> dict[tuple[str, ...], dict[str, Row]]:
    """For each combination of the keys that do not move with this one, the row of each of its values."""
    contexts: dict[tuple[str, ...], dict[str, Row]] = defaultdict(dict)
    moving = followers(table, key)
    for row in table.rows:
        rest = tuple(word for name, word in row.words.items() if name not in moving)
        contexts[rest][row.words[key]] = row
    return contexts


def scores_of(table: Table, key: str) -> tuple[dict[str, dict[int, float]], int]:
    """Mean score of each seed with each value of a key, the best value first, and over how many contexts.

    Empty if no context has all values. Rows of one seed are left out where others have more: one lost run must not silence all.
    So are contexts in which seeds diverged, and values that diverged where others trained: see `fragile_rows`.
    """
    least, weak = max(1, min(2, table.rows[0].best.n)), fragile_rows(table, key)
    contexts = [
        {value: row for value, row in rows.items() if row.best.n >= least and not row.diverged and value not in weak}
        for rows in contexts_of(table, key).values()
    ]
    values = {value for rows in contexts for value in rows}
    whole = [rows for rows in contexts if rows.keys() == values]
    seeds = set.intersection(*(set(row.scores) for rows in whole for row in rows.values())) if values and whole else set()
    if not seeds:
        return {}, 0
    scores = {v: {seed: statistics.fmean(rows[v].scores[seed] for rows in whole) for seed in seeds} for v in values}
    order = sorted(scores, key=lambda value: statistics.fmean(scores[value].values()), reverse=table.measure.mode != "min")
    return {value: scores[value] for value in order}, len(whole)


def varying(table: Table) -> list[str]:
    """Keys that have several values in this table."""
    return [key for key in table.rows[0].words if len({row.words[key] for row in table.rows}) > 1]


def followers(table: Table, key: str) -> list[str]:
    """Keys that vary and have one value for each value of this one, such as an optimizer's arguments; itself too."""
    number = len({row.words[key] for row in table.rows})
    return [name for name in varying(table) if len({(row.words[key], row.words[name]) for row in table.rows}) == number]


def leaders(table: Table) -> list[str]:
    """Keys that vary; of several that follow each other one alone, the part before its arguments."""
    bundles: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in varying(table):
        bundles[tuple(followers(table, key))].append(key)
    return [min(keys, key=lambda key: not key.endswith(TARGET)) for keys in bundles.values()]
