"""One job of a sweep: a child process that trains, supervised, so that its death is nobody else's."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.run_folder import end_dead_run, read_run

PARENT = "TRAIN_PARENT_PROCESS"
WATCH_SECONDS = 0.5


class JobError(UserError):
    """A job of the sweep did not finish."""


def run_job(_: DictConfig) -> float:
    """Trains the current Hydra job in a child process and returns the score that its `run.json` gives.

    Raises:
        JobError: If the child does not finish; it has been named on the console, and its `run.json` says why.
    """
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    print(f"job {job.job.num}: {folder.name}", flush=True)
    overrides: Any = OmegaConf.to_container(job.overrides.task, resolve=False)  # the child fills in ${...} itself
    added = [override for override in job.overrides.hydra if override.startswith("hydra.searchpath=")]
    command = [sys.executable, "-m", "src.train", *overrides, *added, f"hydra.run.dir={quoted(folder)}"]
    environment = os.environ | {PARENT: str(os.getpid())}
    child = subprocess.Popen(command, env=environment)
    try:
        code = child.wait()
    except KeyboardInterrupt:  # the child got it too, and saves
        child.wait()
        end_dead_run(folder, "stopped from the keyboard")
        raise
    if code == 0:
        score = read_run(folder)["best_score"]
        return math.nan if score is None else score
    reason = f"killed by {signal.Signals(-code).name} (out of memory?)" if code < 0 else f"ended with exit code {code}"
    end_dead_run(folder, reason)
    reason = read_run(folder).get("error") or reason
    print(f"job {job.job.num} failed: {folder.name}: {reason}; see {folder / 'train.log'}", file=sys.stderr, flush=True)
    raise JobError(f"job {job.job.num}: {reason}")


def quoted(path: Path) -> str:
    """The path as a value that Hydra's grammar takes whole."""
    return "'" + str(path).replace("'", "\\'") + "'"


def is_child() -> bool:
    """Whether this process is a job of a sweep."""
    return PARENT in os.environ


def end_with_parent() -> None:
    """In a sweep's child and in a rank: ends this process, as SIGTERM would, once the process that started it is gone."""
    parent = os.environ.get(PARENT, os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None)
    if parent is not None:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)  # to save and say so
    os._exit(143)
