"""One job of a sweep: a child process that trains, supervised, so that its death is nobody else's."""

import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.config_errors import quoted
from src.errors import UserError
from src.lock import is_locked
from src.redaction import Redactor
from src.run_folder import end_dead_run, read_run
from src.signals import STOP_SIGNALS
from src.stored_files import within
from src.studies.child import Child
from src.studies.devices import take_device
from src.studies.ledger import claim, is_claimed, note, note_missed_end, read_jobs, read_study
from src.studies.parents import PARENT, end_with_sweeper
from src.studies.progress import refresh_page, tell_standing
from src.studies.submitted import await_requeue, is_local

LOG = "train.log"
POLL_SECONDS = 0.5


class JobError(UserError):
    """A job of the sweep did not finish."""


def run_job(config: DictConfig) -> float:
    """Trains the current Hydra job in a child process and returns the score that its `run.json` gives.

    The job is claimed first, so that several sweepers on one folder share its jobs; one that another finished is not run again.

    Raises:
        JobError: If the child does not finish; it has been named on the console, and its `run.json` says why.
    """
    end_with_sweeper()
    folder = Path(HydraConfig.get().runtime.output_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        score = _run_claimed(config, folder)
    except JobError:
        refresh_page(folder.parent)
        raise
    refresh_page(folder.parent)  # when others may have the job's GPU
    return score


def _run_claimed(config: DictConfig, folder: Path) -> float:
    """The job's score, from its child, or from another sweeper's, if that has it already."""
    job, sweep, number = HydraConfig.get(), folder.parent, int(folder.name.partition("_")[0])
    with claim(sweep, number) as is_mine:
        if not is_mine:
            print(f"job {number}: another sweeper works on it: {folder.name}", flush=True)
            return math.nan  # its score is read once it has one
        while is_locked(folder):  # a child that outlived its killed sweeper is saving
            time.sleep(POLL_SECONDS)
        run = read_run(folder)
        if run.get("status") == "finished":
            note_missed_end(sweep, number, run["best_score"])
            return _score(run)
        if (failed := _failed_before(sweep)) is not None:
            raise JobError(f"job {number}: not begun, as job {failed} failed and study.on_error=stop")
        goes_on = ["training.resume=auto"] if run else []
        overrides: Any = OmegaConf.to_container(job.overrides.task, resolve=False)  # the child fills in ${...} itself
        added = [override for override in job.overrides.hydra if override.startswith("hydra.searchpath=")]
        print(f"job {number}: {folder.name}{' goes on' if goes_on else ''}", flush=True)
        words = [*overrides, *goes_on, *added, f"hydra.run.dir={quoted(folder)}"]
        with take_device(config.device) as options:
            return _supervise(words, folder, number, options)


def _supervise(words: list[str], folder: Path, number: int, options: dict[str, Any]) -> float:
    """Runs the child and writes down how it began and ended."""
    end_dead_run(folder, "its process was killed")
    begin, before = time.monotonic(), read_run(folder)
    note(folder.parent, number, "running")
    options["env"] |= {PARENT: str(os.getpid())}
    child = Child([sys.executable, "-m", "src.train", *words], **options)
    try:
        code = child.wait()
    except BaseException as stop:  # Ctrl-C, or submitit, which queues the job again and ends this process: the child saves first
        child.terminate()
        child.wait()
        reason = _why(stop)
        end_dead_run(folder, reason)
        note(folder.parent, number, "interrupted", seconds=round(time.monotonic() - begin, 1), error=reason)
        raise
    seconds = round(time.monotonic() - begin, 1)
    run = read_run(folder)
    if code == 0 or (run.get("process") == child.pid and run != before and run.get("status") == "finished"):
        score = _score(run)
        note(folder.parent, number, "finished", seconds=seconds, score=score if math.isfinite(score) else None)
        print(f"job {number} finished: {folder.name}: {score:.4f}{tell_standing(folder.parent)}", flush=True)
        return score
    status, reason = _how_it_ended(child, folder, before, words)
    note(folder.parent, number, status, seconds=seconds, error=reason)
    log = folder / LOG
    near = log.relative_to(Path.cwd()) if log.is_relative_to(Path.cwd()) else log
    see = f"; see {near}" if log.exists() else ""
    print(f"job {number} {status}: {folder.name}: {reason}{see}{tell_standing(folder.parent)}", file=sys.stderr, flush=True)
    if status == "interrupted":
        await_requeue()
    raise JobError(f"job {number}: {reason}")


def _how_it_ended(child: Child, folder: Path, before: dict[str, Any], words: list[str]) -> tuple[str, str]:
    """Status and reason of a child that did not finish: as its `run.json` says, or, if it never got so far, as it said itself."""
    code = child.returncode
    why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    why += " (out of memory?)" if code == -signal.SIGKILL else ""
    end_dead_run(folder, why)
    run = read_run(folder)
    if run.get("process") == child.pid and run != before:  # in a container of its own each child may have the same number
        return "interrupted" if run.get("status") == "interrupted" else "failed", run.get("error") or why
    said = Redactor(words).text(child.last_words()).strip()  # it left out what it had read in files itself
    _keep(said, folder)
    if -code in STOP_SIGNALS or code - 128 in STOP_SIGNALS:
        return "interrupted", why
    return "failed", said.rpartition("\n")[2].removeprefix("error: ") or why


def _keep(said: str, folder: Path) -> None:
    """As the log of a job whose child had no folder yet."""
    if not said:
        return
    try:
        folder.mkdir(exist_ok=True)
        with within(folder, LOG).open("a", encoding="utf-8") as log:
            log.write(f"{said}\n")
    except (OSError, UserError) as error:
        print(f"{folder / LOG}: not written ({error})", file=sys.stderr, flush=True)


def _why(stop: BaseException) -> str:
    if isinstance(stop, KeyboardInterrupt):
        return "stopped with its sweep" if is_local() else "stopped from the keyboard"
    return "taken from its machine, and queued again" if isinstance(stop, SystemExit) else str(stop)


def _score(run: dict[str, Any]) -> float:
    return math.nan if run["best_score"] is None else run["best_score"]


def _failed_before(sweep: Path) -> int | None:
    """Number of a job that failed, where that keeps others from being begun."""
    if read_study(sweep).on_error != "stop":
        return None
    return next((job.number for job in read_jobs(sweep) if job.status == "failed"), None)


def wait_for_others(sweep: Path) -> None:
    """Returns once no other sweeper works on a job of this sweep."""
    while any(is_claimed(sweep, number) for number in range(len(read_study(sweep).jobs))):
        time.sleep(POLL_SECONDS)
