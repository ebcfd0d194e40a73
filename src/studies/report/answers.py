"""What a table of configurations says about the question, in sentences."""

from dataclasses import dataclass

from src.studies.statistics.claims import SEEDS_OF_INTERVAL
from src.studies.statistics.effects import Effect, effects, fragile, silent_keys
from src.studies.statistics.sentences import Measure, say
from src.studies.statistics.standing import Row, Table


@dataclass(frozen=True)
class Answer:
    """What may be said of a table, in sentences.

    Attributes:
        first: Its first row, and from how many of the others it can be told.
        lost: Of each row without a score of every seed, what became of the others.
        sizes: How much each key matters; empty where one key alone varies.
        keys: Of each key by itself, its best value against the next.
        more: Its best value against the others.
        silent: Of which keys or values by themselves nothing can be said, and why.
        rows: The first row against each other one.
    """

    first: str
    lost: list[str]
    sizes: str
    keys: list[str]
    more: list[str]
    silent: list[str]
    rows: list[str]


def answer(table: Table) -> Answer:
    """In sentences."""
    measure, first = table.measure, first_sentence(table)
    lost = [f"{row.label}: {row.lost}." for row in table.rows if row.lost]
    if len(table.rows) == 1 or not table.rows[0].runs:
        return Answer(first, lost, "", [], [], [], [])
    found = effects(table)
    by_key: dict[str, list[Effect]] = {}
    for effect in found:
        by_key.setdefault(effect.key, []).append(effect)
    sizes = [
        f"{of[-1].bundle} {measure.amount(abs(of[-1].claim.difference))}" for of in by_key.values()
    ]  # the last is the largest
    told = f"Best against worst value of each key, the others held the same: {', '.join(sizes)}." if sizes else ""
    nearest = [told_of(of[0], measure) for of in by_key.values()]
    more = [told_of(effect, measure) for of in by_key.values() for effect in of[1:]]
    silent = silent_keys(table, found)
    why = "the combinations of the other keys lack runs with all its values and the same seeds"
    nothing = [f"Nothing can be said of {' or '.join(silent)} alone: {why}."] if silent else []
    pairs = zip(table.rows[1:], table.claims, strict=True)
    rows = [say(claim, table.rows[0].label, row.label, measure) for row, claim in pairs if row.runs]
    return Answer(first, lost, told, nearest, more, nothing + fragile(table), rows)


def first_sentence(table: Table) -> str:
    """Who is first with what score, and how far that is to be believed."""
    row, number = table.rows[0], len(table.rows)
    if not row.runs:
        return "No run has a score, so that nothing can be said."
    score = f"{table.measure.amount(row.best.mean)} ({_basis(row, table.measure)})"
    if number == 1:
        return f"One configuration alone{f', {row.label}' if row.words else ''}: {score}."
    if row.diverged:
        return f"None of {number} configurations trained with all of its seeds, so that none is first."
    return f"First of {number} is {row.label} with {score}{_lead(table)}."


def _basis(row: Row, measure: Measure) -> str:
    """Interval, or scores of the few seeds, and how many there are."""
    number, total = len(row.runs), len(row.begun)
    seeds = f"{number} of {total} seeds {row.seeds.rpartition(' ')[2]}" if row.lost else f"{number} seed{'s' * (number != 1)}"
    if row.best.low is None:
        return seeds
    return f"{'' if row.best.n < SEEDS_OF_INTERVAL else '95 %: '}{measure.interval(row.best)}; {seeds}"


def _lead(table: Table) -> str:
    """How far the first row is to be believed to be the best."""
    sign = 1 if table.measure.mode == "max" else -1  # where seeds are missing, another may be ahead on those that both have
    others, behind = len(table.claims), sum(claim.holds and sign * claim.difference > 0 for claim in table.claims)
    if behind == others:
        return f", distinguishable from {'all others' if others > 1 else 'the other'}"
    if not behind:
        return ", which nothing here shows to be the best"
    return f", distinguishable from {behind} of the {others} others"


def told_of(effect: Effect, measure: Measure) -> str:
    """In two sentences."""
    said = say(effect.claim, f"{effect.name}={effect.best}", f"{effect.name}={effect.other}", measure)
    moving = f"; moving with {effect.name}: {', '.join(effect.along)}" if effect.along else ""
    return f"{said} Mean over {effect.contexts} combination{'s' if effect.contexts > 1 else ''} of the other keys{moving}."
