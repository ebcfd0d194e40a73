"""What a study's page is made of, copied without what only one machine knows: small enough to be committed."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.durable import replace_text, write_json
from src.run_folder import STUDY, short_hash
from src.stored_files import read_text
from src.studies.ledger import LEDGER, read_events, read_study
from src.studies.reading import Run, read_runs
from src.studies.report.differences import save_differences

# Facts of run.json that a page shows, or ranks by.
SAVED = (
    *("status", "start", "end", "error", "overrides", "short_id", "config", "class_names"),
    *("epoch", "best_epoch", "best_score", "best_scores", "final_scores", "parameters", "gmacs"),
    *("data_fingerprint", "protocol", "protocol_fingerprint"),
    *("device", "precision", "packages", "git_commit", "git_dirty"),
    "host",  # by a number: which runs trained beside others
)
HERE = ("dataset.root", "dataset.cache")  # keys of this machine alone, as are these words:
WORDS = ("hydra.", "dataset.root=", "dataset.cache=")
PATH = re.compile(r"(?<![\w./])(?:file://)?/(?:[^\s'\",:;()\[\]/]+/)+")  # the folders of an absolute one
WHOLE_PATH = re.compile(r"(^|=)['\"]?((?:file:/|~)?/[^'\"]*)['\"]?$")  # as a value, or as the value of a word


def sweeps_in(folder: Path) -> list[Path]:
    """The folder itself where it is a sweep's, or those in it; links are not entered."""
    found = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())]
    return [path for path in found if (path / STUDY).is_file()]


def save_data(folder: Path, target: Path) -> None:
    """Copies what a report is made of: studies, ledgers, tables, and what the page shows of each `run.json`."""
    runs, studies = read_runs(folder)[0], {sweep: read_study(sweep) for sweep in sweeps_in(folder)}
    configs = [*(study.common for study in studies.values()), *(run.config for run in runs)]
    roots = {str(config["dataset.root"]) for config in configs if config.get("dataset.root")}
    ledgers = {sweep: read_events(sweep) for sweep in studies}
    named = [*(run.facts.get("host") for run in runs), *(event.get("host") for events in ledgers.values() for event in events)]
    hosts = {name: f"host {number}" for number, name in enumerate(dict.fromkeys(filter(None, named)), start=1)}
    target.mkdir(parents=True, exist_ok=True)
    for sweep, study in studies.items():
        place = target / sweep.relative_to(folder)
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / STUDY, anonymous(vars(study), roots))
        events = [anonymous(event | {"host": hosts.get(event.get("host"))}, roots) for event in ledgers[sweep]]
        replace_text(place / LEDGER, "".join(f"{json.dumps(event)}\n" for event in events))
    save_differences(folder, target)
    for run in runs:
        _save_run(run, target / run.folder.relative_to(folder), roots, hosts.get(run.facts.get("host")))


def _save_run(run: Run, place: Path, roots: Iterable[str], host: str | None) -> None:
    place.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = run.facts.get("config") or {}
    data = {key: value for key, value in (config.get("dataset") or {}).items() if f"dataset.{key}" not in HERE}
    facts = {key: run.facts.get(key) for key in SAVED}
    facts |= {"status": run.status, "config": config | {"dataset": data}, "host": host}
    write_json(place / "run.json", anonymous(facts, roots))
    if (run.folder / "metrics.csv").is_file():
        replace_text(place / "metrics.csv", read_text(run.folder, "metrics.csv"))


def anonymous(value: Any, roots: Iterable[str], key: str = "") -> Any:
    """Facts without the folders of data and of whatever an error names."""
    if isinstance(value, dict):
        return {name: anonymous(item, roots, name) for name, item in value.items()}
    if isinstance(value, list):
        kept = [item for item in value if not (isinstance(item, str) and item.lstrip("+~").startswith(WORDS))]
        return [anonymous(item, roots, key) for item in kept]
    if key in HERE:
        return None
    if key in ("error", "reused") and isinstance(value, str):
        for root in sorted(roots, key=len, reverse=True):
            value = re.sub(rf"(?<![\w/]){re.escape(root)}(?![\w-])", "DATA", value)
        return PATH.sub("", value)
    if isinstance(value, str):  # the weights that training started from: files of one name stay two
        return WHOLE_PATH.sub(lambda found: f"{found[1]}{short_hash(found[2])}/{Path(found[2]).name}", value)
    return value
