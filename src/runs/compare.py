"""`python -m src.runs compare`: configurations ranked by their seeds, and what may be said of them."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as Shown
from rich.text import Text

from src.errors import ConfigError
from src.escaping import clean
from src.run_folder import OUTPUTS
from src.runs import listing
from src.studies.choosing import counted
from src.studies.reading import find_sweep, read_runs
from src.studies.statistics.claims import Summary
from src.studies.statistics.sentences import Measure, say
from src.studies.statistics.standing import Table, standings


def main(words: Sequence[str]) -> None:
    """Prints a table for each way of scoring, and a sentence for each row against the first; filters are those of `list`."""
    filters = [match for word in words if not Path(word).is_dir() and (match := listing.FILTER.fullmatch(word))]
    asked = [match.string for match in filters]
    folders = [find_sweep(word) for word in words if word not in asked] or [OUTPUTS]
    print(f"runs in {', '.join(map(str, folders))}{' with ' * bool(asked)}{', '.join(asked)}")  # of a name, the newest sweep
    runs, problems = read_runs(*folders)
    runs = listing.chosen(runs, filters)
    listing.tell_problems(problems)
    tables = standings(runs)
    if not tables:
        raise ConfigError(f"{' '.join(words) or OUTPUTS}: no run there that has ended")
    if len(tables) > 1:
        print(f"{len(tables)} tables, as runs were not all scored in the same way: {'; '.join(differences(tables))}\n")
    numbers = [sum(len(row.begun) for row in table.rows) for table in tables]
    for table, number in zip(tables, numbers, strict=True):
        print_table(table)
        if others := sum(numbers) - number:
            print(f"{counted(number, others)}\n")
    if left := sum(run.status not in ("finished", "failed") for run in runs):
        print(f"{left} runs are not finished yet")


def print_table(table: Table) -> None:
    """Best mean first; the best epoch is what is ranked."""
    title = clean(f"{table.measure.described.title} of the best epoch, which is ranked, and of the last")
    shown = Shown(box=None, title=Text(title, "bold"))
    for name in ("configuration", "seeds", "best epoch", "95 %, or each seed", "last epoch", "parameters"):
        shown.add_column(name, overflow="fold")
    for row in table.rows:
        cells = [row.label, row.seeds, mean_of(row.best, table.measure), table.measure.interval(row.best)]
        parameters = row.begun[0].facts.get("parameters")
        cells += [mean_of(row.last, table.measure), f"{parameters:,}" if parameters else "-"]
        shown.add_row(*(Text(clean(cell)) for cell in cells))
    listing.print_table(shown)
    for row, claim in zip(table.rows[1:], table.claims, strict=True):
        if row.runs:
            print(say(claim, table.rows[0].label, row.label, table.measure))
    for row in (row for row in table.rows if row.lost):
        print(f"{row.label}: {row.lost}.")
    print()


def mean_of(summary: Summary, measure: Measure) -> str:
    """Mean and deviation in the measure's unit; a dash without a score."""
    if not math.isfinite(summary.mean):
        return "-"
    deviation = "" if summary.deviation is None else f" ± {measure.number(summary.deviation)}"
    return measure.number(summary.mean) + deviation


def differences(tables: Sequence[Table]) -> list[str]:
    """What the protocols of the tables do not share."""
    keys = dict.fromkeys(key for table in tables for key in table.protocol)
    found = [f"{key} differs" for key in keys if len({str(table.protocol.get(key)) for table in tables}) > 1]
    tags = {table.measure for table in tables}
    return found + (["monitor differs"] if len(tags) > 1 else []) or ["some runs do not say how they were scored"]
