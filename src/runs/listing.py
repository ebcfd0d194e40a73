"""`python -m src.runs list`: every run, filtered and sorted."""

import csv
import io
import json
import math
import operator
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.errors import ConfigError
from src.escaping import clean
from src.run_folder import OUTPUTS
from src.studies.configurations import Scoring, scoring_of, swept_keys
from src.studies.reading import LONG_AGO, Run, find_sweep, read_runs
from src.times import parse_time

FILTER = re.compile(r"(?P<key>[\w./]+)(?P<sign><=|>=|!=|=|<|>)(?P<value>.*)", re.DOTALL)
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
FORMATS = ("table", "json", "csv")
ALWAYS = ("folder", "status", "score", "epoch", "seed")  # columns that stay however narrow the terminal is
MOST_COLUMNS = 1000


def main(words: Sequence[str]) -> None:
    """Prints the runs that the words ask for."""
    options = {"sort": "", "format": "table"}
    folders, filters = [], []
    for word in words:
        match = FILTER.fullmatch(word)
        if not match:
            folders.append(word)
        elif match["key"] in options and match["sign"] == "=":
            options[match["key"]] = match["value"]
        else:
            filters.append(match)
    if options["format"] not in FORMATS:
        raise ConfigError(f"format={options['format']}; allowed are {', '.join(FORMATS)}")
    runs, problems = read_runs(one_folder(folders))
    shown, ways = chosen(runs, filters), []
    if options["sort"].lstrip("-") == "score":
        ways = by_scoring(shown)
        rows = [row for scoring, members in ways for row in in_order_of_score(members, scoring)]
    else:
        rows = [facts_of(run) for run in shown]
        if options["sort"]:
            rows = in_order(rows, options["sort"], sorted({key for run in runs for key in facts_of(run)}))
    swept = [key for key in swept_keys(runs) if all(key in row for row in rows)]
    print_rows(rows, [*ALWAYS, *(["protocol"] if len(ways) > 1 else []), *swept], options["format"])
    if len(ways) > 1:
        told = "; ".join(f"{len(members)} by {tag} ({mode}), protocol {way}" for (way, tag, mode), members in ways)
        print(f"scored in {len(ways)} ways, each sorted by itself: {told}", file=sys.stderr)
    tell_problems(problems)


def by_scoring(runs: Sequence[Run]) -> list[tuple[Scoring, list[Run]]]:
    """Runs whose scores may be compared, the largest group first."""
    groups: dict[Scoring, list[Run]] = {}
    for run in runs:
        groups.setdefault(scoring_of(run), []).append(run)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def in_order_of_score(runs: Sequence[Run], scoring: Scoring) -> list[dict[str, Any]]:
    """Rows of runs of one scoring, best first, which of a loss is the least; those without a score last."""
    sign = 1 if scoring[2] == "min" else -1
    ordered = sorted(runs, key=lambda run: math.inf if math.isnan(run.score) else sign * run.score)
    return [facts_of(run) for run in ordered]


def chosen(runs: Sequence[Run], filters: Sequence[re.Match[str]]) -> list[Run]:
    """Those that fit every filter; raises ConfigError for a key that no run has."""
    facts = {run.folder: facts_of(run) for run in runs}
    for match in filters:
        if runs and not any(match["key"] in known for known in facts.values()):
            raise ConfigError(
                f"{match['key']}: no run has such a key; score, status, seed, folder and those of config.yaml are there"
            )
        runs = [run for run in runs if fits(facts[run.folder].get(match["key"]), match["sign"], match["value"])]
    return list(runs)


def tell_problems(problems: Sequence[str]) -> None:
    """A line on stderr for each run that could not be read."""
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


def frame(root: str | Path = OUTPUTS) -> Any:
    """All runs under a folder as a pandas DataFrame, a row each; raises ConfigError where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise ConfigError("pandas is not installed; pip install pandas") from error
    return pandas.DataFrame([facts_of(run) for run in read_runs(Path(root))[0]])


def one_folder(words: Sequence[str]) -> Path:
    """The folder that is looked through; of a sweep's name, its newest one."""
    hint = "give one folder or sweep, and filters such as model.init=kaiming or score>0.4"
    if len(words) > 1:
        raise ConfigError(f"{' '.join(words)}: {hint}")
    try:
        return find_sweep(words[0]) if words else OUTPUTS
    except ConfigError as error:
        raise ConfigError(f"{error}; {hint}") from None


def facts_of(run: Run) -> dict[str, Any]:
    """What can be filtered, sorted and shown."""
    own = {"folder": str(run.folder), "status": run.status, "score": None if math.isnan(run.score) else run.score}
    own |= {
        "protocol": run.fingerprint,
        "epoch": run.facts.get("epoch"),
        "parameters": run.facts.get("parameters"),
        "host": run.facts.get("host"),
    }
    return own | {"start": run.facts.get("start"), "error": run.facts.get("error")} | run.config


def fits(value: Any, sign: str, wanted: str) -> bool:
    """Whether a value is as the filter asks: numbers as numbers, all else as text, as YAML has it."""
    if isinstance(value, bool):
        value, wanted = str(value).lower(), wanted.lower()
    try:
        left, right = float(value), float(wanted)
    except (TypeError, ValueError, OverflowError):  # of a number with hundreds of digits
        left, right = "null" if value is None else str(value).replace(" ", ""), wanted.replace(" ", "")
        if sign not in ("=", "!="):
            return False
    return SIGNS[sign](left, right)


def in_order(rows: list[dict[str, Any]], key: str, known: Sequence[str]) -> list[dict[str, Any]]:
    """Sorted by a key, falling where it begins with `-`; what has none comes last. `start` is compared as a moment."""
    falling = key.startswith("-")
    key = key.removeprefix("-")
    if key not in known:
        raise ConfigError(f"sort={key}: no run has such a key")
    there = [row for row in rows if row.get(key) is not None]
    numbers = all(isinstance(row[key], int | float) for row in there)
    value = (
        (lambda row: parse_time(row[key]) or LONG_AGO) if key == "start" else lambda row: row[key] if numbers else str(row[key])
    )
    ordered = sorted(there, key=value, reverse=falling)
    return ordered + [row for row in rows if row.get(key) is None]


def print_rows(rows: list[dict[str, Any]], shown: Sequence[str], form: str) -> None:
    """As a table for people, or whole as JSON or CSV."""
    if form == "json":
        print(json.dumps(rows, indent=2, default=str))
        return
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
        print(text.getvalue(), end="")
        return
    cells = {key: [clean(in_words(row.get(key))) for row in rows] for key in shown}
    fitting = columns_that_fit(cells)
    table = Table(box=None)
    for key in fitting:
        table.add_column(Text(clean(key)), overflow="fold")
    for row in zip(*(cells[key] for key in fitting), strict=True):
        table.add_row(*map(Text, row))
    print_table(table)
    left = len(shown) - len(fitting)
    print(f"{len(rows)} runs" + (f", {left} columns that do not fit here; format=csv has all" if left else ""))


def columns_that_fit(cells: dict[str, list[str]]) -> list[str]:
    """Those of ALWAYS, and as many of the others as this terminal has room for; all where there is none."""
    room, found = Console().width if sys.stdout.isatty() else MOST_COLUMNS, []
    for key, column in cells.items():
        room -= max(map(len, [key, *column])) + 2
        if room < 0 and key not in ALWAYS:
            break
        found.append(key)
    return found


def print_table(table: Table) -> None:
    """As wide as the terminal; where there is none, as wide as it needs, so that a path stays one word."""
    Console(width=None if sys.stdout.isatty() else MOST_COLUMNS).print(table)


def in_words(value: Any) -> str:
    """Scores with four digits, nothing as a dash."""
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) and 0.001 < abs(value) < 1 else str(value)
