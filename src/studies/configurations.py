"""Runs grouped into configurations: the keys that set these apart, and which run of each seed counts."""

import re
from collections import defaultdict
from collections.abc import Sequence

from src.config import is_harmless
from src.studies.reading import Run

ASKED = re.compile(r"study\.(?:crossed|paired)\.(.+)")
Scoring = tuple[str, str, str]


def scoring_of(run: Run) -> Scoring:
    """How its score was taken: protocol, tag and mode. Only runs that agree in this may be ranked together."""
    tag = str(run.config.get("monitor.tag"))
    formula = f" of version {run.facts.get('results_version', 1)}" if tag.endswith("/loss") else ""  # averaged over images before
    return run.fingerprint + formula, tag, str(run.config.get("monitor.mode"))


def configurations(runs: Sequence[Run]) -> dict[Scoring, list[list[Run]]]:
    """For each way of scoring the runs of each of its configurations.

    Args:
        runs: All that were started, oldest first.
    """
    keys = varying_keys(runs)
    groups: dict[Scoring, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[scoring_of(run)][repr([run.config.get(key) for key in keys])].append(run)
    return {scoring: list(found.values()) for scoring, found in groups.items()}


def one_a_seed(runs: Sequence[Run]) -> list[Run]:
    """The run of each seed that counts, in the order of seeds: the newest result, or without one the newest run.

    A result is a score, or that training diverged. A failure for another reason, made good by a later or earlier run, is none.
    """
    found: dict[int, Run] = {}
    for run in runs:
        before = found.get(run.seed)
        if before is None or _is_result(run) or not _is_result(before):
            found[run.seed] = run
    return [found[seed] for seed in sorted(found)]


def _is_result(run: Run) -> bool:
    return run.is_scored or run.has_diverged


def varying_keys(runs: Sequence[Run]) -> list[str]:
    """Keys that set the configurations apart: those that differ, and those to which a study gives several values."""
    return list(dict.fromkeys([*swept_keys(runs), *asked_keys(runs)]))


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Keys that alter results and are not the same in all runs, without the seed."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: {repr(run.config.get(key)) for run in runs} for key in keys}
    return [key for key in keys if len(values[key]) > 1 and key != "seed" and not is_harmless(key)]


def asked_keys(runs: Sequence[Run]) -> list[str]:
    """Those to which a study gives several values, though runs of one alone may have been started yet."""
    asked = [(ASKED.match(key), key, run.config) for run in runs for key in run.config]
    return [found[1] for found, key, config in asked if found and found[1] in config and len(config[key] or []) > 1]
