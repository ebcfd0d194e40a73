"""`python -m src.runs diff A B`: a lab note in Markdown on what sets two runs apart."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from src.errors import ConfigError, UserError
from src.escaping import code, code_block, markdown
from src.resume import flatten
from src.run_folder import read_run
from src.stored_evaluations import read_evaluation
from src.stored_files import read_text, within
from src.studies.choosing import choose_runs
from src.studies.reading import Run
from src.studies.statistics.frames import compare_evaluations
from src.studies.statistics.sentences import say

MOST_LINES = 200  # of code that are shown


def main(words: Sequence[str]) -> None:
    """Prints the note."""
    folders = choose_runs(list(words)) if words else []
    if len(folders) != 2:
        raise ConfigError(f"diff takes two runs, {len(folders)} were given; give two folders, or SWEEP:top2")
    a, b = (Run(folder, read_run(folder)) for folder in folders)
    print(lab_note(a, b))


def lab_note(a: Run, b: Run) -> str:
    """Configuration, code, packages, data and scores, each where the two differ."""
    parts = [
        f"# {markdown(a.folder.name)} and {markdown(b.folder.name)}",
        f"A: {code(str(a.folder))}, {markdown(a.status)}\nB: {code(str(b.folder))}, {markdown(b.status)}",
    ]
    told = [f"| {name} | {_score(one)} | {_score(other)} |" for name, (one, other) in _scores(a, b).items()]
    parts += ["## Scores\n\n| | A | B |\n|---|---|---|\n" + "\n".join(told)]
    if _monitored(a) != _monitored(b):
        parts += [f"A's best epoch is the best by {_monitored(a)}, B's by {_monitored(b)}: they must not be ranked together."]
    if a.fingerprint != b.fingerprint:
        parts += [
            "They were scored in different ways and must not be ranked together:\n\n"
            + _table(flatten(a.protocol), flatten(b.protocol))
        ]
    elif _monitored(a) == _monitored(b):
        parts += [
            "Two runs say nothing about two configurations: that takes several seeds of each (`python -m src.runs compare`)."
        ]
    parts += _checkpoints(a, b)
    for title, key in (("Configuration", "config"), ("Data", "data_fingerprint"), ("Packages", "packages")):
        parts += [f"## {title}\n\n" + _table(_of(a, key), _of(b, key))]
    keys = ("host", "device", "precision", "git_commit", "git_dirty")
    parts += ["## Machine and code\n\n" + _table(*({key: run.facts.get(key) for key in keys} for run in (a, b)))]
    if patches := _patches(a, b):
        parts += [f"Uncommitted code differs:\n\n{code_block(patches)}"]
    return "\n\n".join(parts)


def _scores(a: Run, b: Run) -> dict[str, tuple[float, float]]:
    """Of both runs, by name; the best ones stand in one line only where they are the best of the same."""
    tags = dict.fromkeys(str(run.config.get("monitor.tag")) for run in (a, b))
    at_end = {f"{markdown(tag)} at the last epoch": (a.score_at_end(tag), b.score_at_end(tag)) for tag in tags}
    if _monitored(a) == _monitored(b):
        return {f"best {markdown(a.config.get('monitor.tag'))}": (a.score, b.score), **at_end}
    return {f"best by {_monitored(a)}": (a.score, math.nan), f"best by {_monitored(b)}": (math.nan, b.score), **at_end}


def _monitored(run: Run) -> str:
    return markdown(f"{run.config.get('monitor.tag')}, {run.config.get('monitor.mode')}")


def _checkpoints(a: Run, b: Run) -> list[str]:
    """What may be said of the checkpoints where src.evaluate scored both; nothing where it did not."""
    said = []
    for file in sorted(within(a.folder, "evaluations").glob("*.json")):
        if not (b.folder / "evaluations" / file.name).is_file():
            continue
        try:
            claim = compare_evaluations(*(read_evaluation(run.folder / "evaluations" / file.name) for run in (a, b)))
            said.append(f"- {markdown(file.stem)}: {markdown(say(claim, 'A', 'B'))}")
        except UserError as error:
            said.append(f"- {markdown(file.stem)}: {markdown(error)}")
    return ["## The two checkpoints\n\n" + "\n".join(said)] if said else []


def _of(run: Run, key: str) -> dict[str, Any]:
    return flatten(run.facts.get(key) or {})


def _table(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    rows = [f"| {' | '.join(map(markdown, (key, a.get(key), b.get(key))))} |" for key in keys]
    return "| | A | B |\n|---|---|---|\n" + "\n".join(rows) if rows else "The same."


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _patches(a: Run, b: Run) -> str:
    texts = [read_text(run.folder, "diff.patch").splitlines() for run in (a, b)]
    lines = list(difflib.unified_diff(texts[0], texts[1], "A/diff.patch", "B/diff.patch", lineterm="", n=1))
    more = [f"... and {len(lines) - MOST_LINES} lines more"] if len(lines) > MOST_LINES else []
    return "\n".join([*lines[:MOST_LINES], *more])
