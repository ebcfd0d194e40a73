"""`python -m src.runs replay RUN`: composes a run again, scores its checkpoint again, and says whether both are the same."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config import EvaluateConfig, check_evaluate, is_harmless
from src.errors import ConfigError, UserError
from src.redaction import HIDDEN
from src.resume import differing_keys, flatten
from src.run_folder import Launch, read_run
from src.stored_files import read_bytes
from src.studies.choosing import choose_runs
from src.studies.reading import Run

if TYPE_CHECKING:  # torch is imported only once everything is composed and checked
    from src.stored_config import StoredConfig
    from src.stored_evaluations import Evaluation

OPTIONS = ("root", "device", "precision", "threads", "batch_size", "num_workers")  # as of src.evaluate
TOLERANCE = 1e-6  # of a score
MAX_NAMED = 6  # differences that a line names


@dataclass(frozen=True)
class Finding:
    """One thing then and now.

    Attributes:
        what: Configuration, code, packages, device, data or score.
        differences: What is not as it was, a line each; none where all is the same.
        told: What is said where all is the same.
        decides: Whether a difference makes the run a different one; the others are only what may be why.
    """

    what: str
    differences: list[str]
    told: str
    decides: bool = True

    @property
    def text(self) -> str:
        """As a line."""
        more = [f"and {len(self.differences) - MAX_NAMED} more"] if len(self.differences) > MAX_NAMED else []
        said = "; ".join(self.differences[:MAX_NAMED] + more)
        return f"  {self.what:14} {f'different: {said}' if said else f'the same ({self.told})'}"


def main(words: Sequence[str]) -> None:
    """Prints what was found of each run named; the exit code is 1 if one is different.

    Raises:
        UserError: If there is no such run, or nothing of it to score.
    """
    named = [word for word in words if "=" not in word]
    if not named:
        raise ConfigError(f"replay takes a run's folder, best, or SWEEP:top3, and {', '.join(f'{key}=' for key in OPTIONS)}")
    config = read_options([word for word in words if "=" in word])
    all_same = True
    for folder in choose_runs(named):
        findings = replay(folder, config)
        verdict, is_same = conclude(findings)
        print("\n".join([str(folder), *(finding.text for finding in findings), verdict]), flush=True)
        all_same &= is_same
    sys.exit(0 if all_same else 1)


def read_options(words: list[str]) -> EvaluateConfig:
    """The keys of src.evaluate that are given, on top of conf/evaluate.yaml."""
    from src.composing import compose_checked, fill_in

    if others := [word for word in words if word.partition("=")[0] not in OPTIONS]:
        raise ConfigError(f"{others[0]}: not used here; allowed are {', '.join(f'{key}=' for key in OPTIONS)}")
    config = fill_in(compose_checked("evaluate", ["run=named", *words])[0])
    check_evaluate(config)
    return config


def replay(folder: Path, options: EvaluateConfig) -> list[Finding]:
    """Everything of a run that can be looked at again without training it again."""
    from src.evaluate import read_checked

    run = Run(folder, read_run(folder))
    stored = read_checked(folder, options)
    first = [compare_configuration(run), compare_code(run), compare_packages(run)]

    from src.evaluation import Request, evaluate_checkpoint

    evaluation = evaluate_checkpoint(folder, stored, Request("val", "training", "best"))
    return [*first, compare_device(run, evaluation), compare_data(run, stored, evaluation), compare_score(run, evaluation)]


def conclude(findings: Sequence[Finding]) -> tuple[str, bool]:
    """The verdict as a line, and whether it is `the same`."""
    other = [finding.what for finding in findings if not finding.decides and finding.differences]
    differ = f"{' and '.join(other)} differ{'s' if len(other) == 1 else ''}"
    deciding = [finding.what for finding in findings if finding.decides and finding.differences]
    if deciding:
        why = f"; {differ} too, which may be why" if other else ""
        return f"different: {', '.join(deciding)}{why}", False
    caution = f"; {differ}, so training it again may not give the same weights" if other else ""
    return f"the same: configuration, data and the checkpoint's score{caution}", True


def compare_configuration(run: Run) -> Finding:
    """The overrides composed on today's conf/, key by key but for the harmless ones, and the id of the result."""
    try:
        launch = compose_again(run)
    except UserError as error:
        return Finding("configuration", [f"its overrides do not compose today ({error})"], "")
    now = flatten(launch.stored)
    keys = differing_keys(run.config, now)
    told = [f"{key} was {run.config.get(key)}, is {now.get(key)}" for key in keys if not is_harmless(key)]
    then, hides = run.facts.get("short_id"), any(HIDDEN in str(value) for value in run.config.values())
    if not told and not hides and launch.short_id != then:
        told = [f"id {then}, now {launch.short_id}"]
    return Finding("configuration", told, f"id {then}")


def compose_again(run: Run) -> Launch:
    """What the run's own overrides mean today; raises UserError where they mean nothing any more."""
    from src.composing import prepare

    return prepare("config", run.facts.get("overrides") or [])[0]


def compare_code(run: Run) -> Finding:
    """The commit, and whether anything was not committed."""
    from src.environment import describe_environment, uncommitted_changes

    facts = describe_environment()
    then, now = run.facts.get("git_commit"), facts["git_commit"]
    told = [] if then == now else [f"commit {str(then)[:8]}, now {str(now)[:8]}"]
    try:
        before = read_bytes(run.folder, "diff.patch") if (run.folder / "diff.patch").is_file() else b""
    except UserError as error:
        return Finding("code", [*told, str(error)], "", decides=False)
    if before != (uncommitted_changes() if facts["git_dirty"] else b""):
        file = run.folder / "diff.patch"
        told.append(f"what was not committed then is in {file}" if before else "all was committed then, and is not now")
    return Finding("code", told, f"commit {str(now)[:8]}{', the same uncommitted changes' if before else ''}", decides=False)


def compare_packages(run: Run) -> Finding:
    """Versions of Python and of what changes results."""
    from src.environment import package_versions

    then, now = run.facts.get("packages") or {}, package_versions()
    names = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    told = [f"{name} {then.get(name, 'none')}, now {now.get(name, 'none')}" for name in names]
    return Finding("packages", told, f"{len(now)} of them", decides=False)


def compare_device(run: Run, evaluation: "Evaluation") -> Finding:
    """What it was computed on and in."""
    keys = ("device", "precision")
    told = [
        f"{key} {run.facts.get(key)}, now {evaluation.facts[key]}" for key in keys if run.facts.get(key) != evaluation.facts[key]
    ]
    return Finding("device", told, f"{evaluation.facts['device']} in {evaluation.facts['precision']}", decides=False)


def compare_data(run: Run, stored: "StoredConfig", evaluation: "Evaluation") -> Finding:
    """Fingerprints of the training and the validation split."""
    from src.evaluation import build_split

    then: dict[str, Any] = run.facts.get("data_fingerprint") or {}
    now = {"train": build_split(stored, "train").fingerprint, "val": evaluation.protocol["scored_data"]}
    told = [f"{split} {then.get(split)}, now {now[split]}" for split in now if then.get(split) != now[split]]
    return Finding("data", told, ", ".join(f"{split} {digest}" for split, digest in now.items()))


def compare_score(run: Run, evaluation: "Evaluation") -> Finding:
    """Every score of the checkpoint's epoch that an evaluation has too."""
    epoch, scores = evaluation.facts["epoch"], evaluation.scores
    row = next((row for row in run.rows if row.get("epoch") == epoch), None)
    if row is None:
        return Finding("score", [f"metrics.csv has no epoch {epoch}, which the checkpoint is of"], "")
    now = {f"val/{name}": scores[name] for name in ("miou", "pixel_accuracy", "class_accuracy")}
    now |= {f"val/iou/{name}": value for name, value in scores["iou"].items()}
    pairs = {tag: (row.get(tag, math.nan), math.nan if value is None else value) for tag, value in now.items()}
    off = {tag: abs(b - a) for tag, (a, b) in pairs.items() if not (math.isnan(a) and math.isnan(b))}
    told = [
        f"{tag} {pairs[tag][0]:.6f}, now {pairs[tag][1]:.6f}" for tag, apart in off.items() if not apart <= TOLERANCE
    ]  # NaN too
    return Finding("score", told, f"val/miou {scores['miou']:.4f} at epoch {epoch}, {len(off)} scores within {TOLERANCE:g}")
