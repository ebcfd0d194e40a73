"""Which folder a run works in: a new one, or that of the run which it continues."""

import contextlib
import logging
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from src.config import RESULTS_VERSION, YOUNGER_KEYS, Config, is_harmless
from src.durable import writing
from src.errors import ConfigError, UserError
from src.lock import is_locked
from src.run_folder import IN_USE, OUTPUTS, STUDY, Launch, RunFolder, claim_folder, end_dead_run, read_run
from src.times import parse_time

LOGGER = logging.getLogger("src")
NEVER = datetime.min.replace(tzinfo=timezone.utc)  # of a run whose start is not known
UNFINISHED = ("running", "failed", "interrupted")
FINISHED = "finished"
STATES = ("last.pt", "last_previous.pt", "best.pt", "best_previous.pt")  # in the order in which a resumed run tries them


def find_previous(config: Config, launch: Launch) -> Path | None:
    """The folder of the run that this one continues, or None for a new one.

    Raises:
        ConfigError: If that run is not there or was configured differently.
    """
    resume = config.training.resume
    home = OUTPUTS / str(config.name)
    mark_dead_runs(home)
    if resume == "never":
        return None
    if resume == "auto":
        found = launch.folder or _newest(home, launch)
        if found is None:
            return None
        if not _has_state(found):
            check_begins_anew(found, launch, config.training.epochs)
            return None
    else:
        found = Path(resume)
        with writing(found):
            if is_locked(found):  # said first: it may not have saved yet
                raise ConfigError(f"{found}: {IN_USE}")
        if (found / STUDY).is_file():
            raise ConfigError(f"training.resume={resume}: a sweep; -m study.resume={resume} goes on with it")
        if not _has_state(found):
            raise ConfigError(f"training.resume={resume}: no checkpoints/last.pt there; give a run's folder, auto or never")
    check_same(found, launch, config.training.epochs)
    if read_run(found).get("results_version", 1) != RESULTS_VERSION:
        if (tag := config.monitor.tag).endswith("/loss"):
            raise ConfigError(
                f"{found}: started by a version that averaged monitor.tag={tag} in another way, so its best epoch cannot be"
                f" compared with the next ones; start a new run from model.weights={found}/checkpoints/best.pt"
            )
        LOGGER.warning("%s: started by a version that drew other random numbers; the rest is trained with today's", found)
    return found


def claim_run(config: Config, launch: Launch, previous: Path | None) -> RunFolder:
    """The folder that this run works in; raises ConfigError if another run or process has it."""
    if previous is not None:
        return RunFolder(previous, is_resumed=True)
    return RunFolder(_new_folder(launch, OUTPUTS / str(config.name)))


def mark_dead_runs(home: Path) -> None:
    """Says in `run.json` of runs whose process is gone that they were killed."""
    sweeps = OUTPUTS / "multirun" / home.name
    for file in [*home.glob("*/run.json"), *sweeps.glob("*/*/run.json")]:
        with contextlib.suppress(UserError, OSError):  # another run's damaged file is no reason not to train
            end_dead_run(file.parent, "its process was killed")


def _new_folder(launch: Launch, home: Path) -> Path:
    if launch.folder is None:
        return claim_folder(home, launch.short_id)
    if (launch.folder / "run.json").exists() and launch.config["training"]["resume"] != "auto":
        raise ConfigError(
            f"hydra.run.dir={launch.folder}: holds a run already; use another folder, or training.resume=auto to go on with it"
        )
    return launch.folder


def _newest(home: Path, launch: Launch) -> Path | None:
    """The newest unfinished run of this id that can go on, else the newest finished one."""
    found = []
    for folder in sorted((file.parent for file in home.glob("*/run.json")), reverse=True):
        try:
            run = read_run(folder)
        except UserError as error:
            LOGGER.warning("%s; it is passed over", error)
            continue
        if run.get("short_id") == launch.short_id and run.get("status") in (*UNFINISHED, FINISHED):
            found.append((run["status"] != FINISHED, parse_time(run.get("start")) or NEVER, folder))
    for _, _, folder in sorted(found, reverse=True):
        with writing(folder):
            if _has_state(folder) and not is_locked(folder):
                return folder
    return None


def _has_state(folder: Path) -> bool:
    return any((folder / "checkpoints" / name).is_file() for name in STATES)


def check_begins_anew(folder: Path, launch: Launch, epochs: int) -> None:
    """Raises ConfigError if what lies in a folder without checkpoints is of another run, or finished, and would be lost."""
    if not (before := read_run(folder)):
        return
    check_same(folder, launch, epochs)
    if before.get("status") == FINISHED:
        raise ConfigError(f"{folder}: a finished run without its checkpoints, which cannot go on; use another folder")
    if (folder / "metrics.jsonl").exists():  # killed before its first save, perhaps in a sweep, where nobody is at hand
        LOGGER.warning("%s: no checkpoint to go on from; the run begins anew, and its metrics with it", folder)


def check_same(folder: Path, launch: Launch, epochs: int) -> None:
    """Raises ConfigError, naming the keys, unless only harmless ones differ from the run's, or it gets more epochs."""
    if not (before := read_run(folder)):
        raise ConfigError(f"{folder}: no run.json there, which says what was trained; start a new run from model.weights=FILE")
    old, new = flatten(before.get("config", {})), flatten(launch.stored)
    differing = [key for key in differing_keys(old, new) if not is_harmless(key)]
    if epochs > (old.get("training.epochs") or 0):  # a schedule that ends with the run is stretched with it
        ends = (old.get("training.epochs"), epochs)
        differing = [k for k in differing if k != "training.epochs" and not _ends_with_run(k, old, new, ends)]
    if differing:
        changes = ", ".join(f"{key} ({value_of(old, key)} there, {value_of(new, key)} here)" for key in differing)
        raise ConfigError(f"{folder} was trained with other values: {changes}; give them again, or start a new run")


def is_finished_on_other_data(folder: Path, fingerprints: dict[str, str]) -> bool:
    """Whether the run there has nothing left to do, and had other images or masks than `training.resume=auto` has now."""
    before = read_run(folder)
    same = (before.get("data_fingerprint") or {}).items() <= fingerprints.items()
    return before.get("status") == FINISHED and not same


def check_data(folder: Path, fingerprints: dict[str, str]) -> None:
    """Raises ConfigError if a split of the run that goes on had other images or masks than it has now."""
    before = read_run(folder).get("data_fingerprint") or {}
    for split, fingerprint in fingerprints.items():
        if before.get(split, fingerprint) != fingerprint:
            raise ConfigError(
                f"{folder} was trained on other data: dataset.root now holds other files for {split}"
                f" ({before[split]} there, {fingerprint} here); give those of then, or start a new run"
            )


def _ends_with_run(key: str, old: dict[str, Any], new: dict[str, Any], ends: tuple[Any, int]) -> bool:
    return key.startswith("scheduler.") and (old.get(key), new.get(key)) == ends


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The dotted keys whose values differ between a stored configuration and another, sorted."""
    return [key for key in sorted(old.keys() | new.keys()) if value_of(old, key) != value_of(new, key)]


def value_of(config: dict[str, Any], key: str) -> Any:
    """What a run of this configuration was trained with, also where the key is younger than the run."""
    return config.get(key, YOUNGER_KEYS.get(key))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values; lists are values."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, item in tree.items() for k, v in flatten(item, f"{prefix}.{name}" if prefix else str(name)).items()}
