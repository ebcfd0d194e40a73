"""Which runs `best`, `SWEEP:top3` or a folder mean."""

import re
import sys
from pathlib import Path

from src.errors import ConfigError
from src.run_folder import OUTPUTS, STUDY
from src.studies.configurations import configurations, one_a_seed, scoring_of
from src.studies.reading import Run, find_sweep, read_runs

TOP = re.compile(r"(?P<sweep>.+):top(?P<number>\d+)")


def choose_runs(wanted: str | list[str]) -> list[Path]:
    """Folders of the runs that `best`, `SWEEP:top3`, a folder, or a list of these mean; each once.

    Raises:
        ConfigError: If there are none.
    """
    if isinstance(wanted, list):
        if not wanted:
            raise ConfigError("run=[]: no run named; give a run's folder, best, or SWEEP:top3")
        return list(dict.fromkeys(folder for word in wanted for folder in choose_runs(str(word))))
    match = TOP.fullmatch(wanted)
    if wanted != "best" and not match:
        if (Path(wanted) / "run.json").is_file():
            return [Path(wanted)]
        if (Path(wanted) / STUDY).is_file() or (not Path(wanted).is_dir() and (OUTPUTS / "multirun" / wanted).is_dir()):
            raise ConfigError(f"run={wanted}: a sweep; give {wanted}:top1 for its best run, or the folder of one of its jobs")
        raise ConfigError(f"run={wanted}: no run.json there; give a run's folder, best, or SWEEP:top3")
    root, number = (find_sweep(match["sweep"]), int(match["number"])) if match else (OUTPUTS, 1)
    if number < 1:
        raise ConfigError(f"run={wanted}: top0 is none; give top1 or more")
    ranked, notes = rank_like_newest(read_runs(root)[0])
    if not ranked:
        raise ConfigError(f"run={wanted}: no finished run in {root}")
    for note in notes:
        print(f"run={wanted}: {note}", file=sys.stderr)
    return [run.folder for run in ranked[:number]]


def rank_like_newest(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs whose score was taken as the newest one's was, best first, and what a person must know of this choice.

    Runs of configurations of which other seeds diverged come last: a seed that survived does not speak for these.
    """
    scored = [run for run in runs if run.is_scored]
    if not scored:
        return [], []
    newest = max(scored, key=lambda run: run.end)
    alike = [run for run in scored if scoring_of(run) == scoring_of(newest)]
    groups = [group for found in configurations(runs).values() for group in found]
    survivors = {run.folder for group in groups if any(run.has_diverged for run in one_a_seed(group)) for run in group}
    ranked = sorted(alike, key=lambda run: run.score, reverse=newest.config.get("monitor.mode") != "min")
    last, notes = [run for run in ranked if run.folder in survivors], []
    if others := len(scored) - len(alike):
        _, tag, mode = scoring_of(newest)
        notes.append(f"best by {tag} ({mode}) of {counted(len(alike), others)}")
    if last:
        notes.append(f"{len(last)} of these ranked last, as other seeds of the same configuration diverged")
    return [run for run in ranked if run.folder not in survivors] + last, notes


def counted(alike: int, others: int) -> str:
    """How many runs a ranking is of, and how many it leaves out."""
    left_out = f"{others} {'others were' if others > 1 else 'other was'} scored differently"
    return f"{alike} run{'s' * (alike > 1)} scored this way; {left_out}"
