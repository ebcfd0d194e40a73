"""What a sweep says while it runs: how its jobs stand, how long the others will take, and its page."""

import fcntl
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from src.errors import UserError
from src.studies.ledger import Job, Study, read_jobs, read_study
from src.times import parse_time

PAGE = "report.html"
FRESH_SECONDS = 30  # a page is not written again before it is so old: it takes less than a second, but there may be many workers


def tell_standing(sweep: Path) -> str:
    """`; 4 of 12 done, 1 failed, about 25 min left`."""
    try:
        study, jobs = read_study(sweep), read_jobs(sweep)
    except (UserError, OSError) as error:  # another job's damaged file is no reason to lose this one
        return f"; how the others stand is not known ({error})"
    failed = sum(job.status == "failed" for job in jobs)
    of_all = "" if "hydra/sweeper=optuna" in study.words else f" of {len(jobs)}"  # a search adds its jobs as it goes
    told = [f"{sum(job.status == 'finished' for job in jobs)}{of_all} done", *([f"{failed} failed"] if failed else [])]
    is_stopping = failed and study.on_error == "stop"
    if not is_stopping and (seconds := seconds_left(jobs, weights_of(study), datetime.now().astimezone())):
        told.append(f"about {in_words(seconds)} left")
    return f"; {', '.join(told)}"


def weights_of(study: Study) -> list[float]:
    """What jobs cost beside each other: the plan's seconds; one that has none, the mean of the others."""
    planned = [(job.get("planned") or {}).get("seconds") for job in study.jobs]
    known = [float(seconds) for seconds in planned if seconds]
    mean = sum(known) / len(known) if known else 1.0
    return [float(seconds or mean) for seconds in planned]


def seconds_left(jobs: Sequence[Job], weights: Sequence[float], now: datetime) -> float | None:
    """Until all jobs are done, judged by those that are; None where none is.

    As many go on at once as now, and a worker whose job has just ended takes another. What failed is not run again.
    """
    done = [job for job in jobs if job.status == "finished" and job.seconds]
    if not done:
        return None
    pace = sum(job.seconds for job in done) / sum(weights[job.number] for job in done)
    running = [(job, since) for job in jobs if job.status == "running" and (since := parse_time(job.since))]
    waiting = [pace * weights[job.number] for job in jobs if job.status in ("queued", "interrupted")]
    left = [max(pace * weights[job.number] - (now - since).total_seconds(), 0.0) for job, since in running] + waiting
    if not left:
        return None
    at_once = len(running) + (1 if waiting else 0)
    return max(sum(left) / at_once, max(left))


def in_words(seconds: float) -> str:
    """`45 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def refresh_page(sweep: Path) -> None:
    """Writes the sweep's page unless it is fresh or somebody else is writing it."""
    page = sweep / PAGE
    try:
        with (sweep / ".report").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not page.exists() or time.time() - page.stat().st_mtime > FRESH_SECONDS:
                write_page(sweep)
    except BlockingIOError:  # that somebody else is writing it
        return
    except OSError as error:
        print(f"no report: {error}", file=sys.stderr, flush=True)


def write_page(sweep: Path) -> bool:
    """Writes the page; where that cannot be done, says so: the runs are whole all the same."""
    try:
        from src.studies.report.page import write_report

        write_report(sweep)
    except Exception as error:  # even a mistake of ours must not end a sweep
        print(f"no report: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return False
    return True
