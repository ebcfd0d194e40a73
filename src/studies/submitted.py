"""What jobs that submitit runs need, on Slurm or here: a folder of its own, and time to be queued again."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

EXECUTOR = "SUBMITIT_EXECUTOR"  # slurm or local, set by submitit in the processes that it starts
SUBMITIT = ".submitit"  # in the sweep's own, as the launcher has it
REQUEUE_SECONDS = 300.0


def is_local() -> bool:
    """Whether this process runs a job of submitit's local executor."""
    return os.environ.get(EXECUTOR) == "local"


def await_requeue() -> None:
    """After a signal has ended the child: gives submitit's own signal, by which it queues the job again, time to come.

    Slurm that takes a job away sends SIGTERM to all of its processes first. submitit waits for what follows it, and a job that
    returned before would count as done.
    """
    if os.environ.get(EXECUTOR) == "slurm":
        time.sleep(REQUEUE_SECONDS)


@contextlib.contextmanager
def private_pickles(sweep: Path, is_submitit: bool) -> Iterator[None]:
    """Keeps what submitit writes to this user, and removes its pickles, which hold the command with its secrets, at the end.

    Where the block fails they stay: jobs that are still queued read theirs when they begin. So do those of another sweeper.
    """
    folder = sweep / SUBMITIT
    if is_submitit:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    others = set(folder.rglob("*.pkl"))
    yield
    for file in set(folder.rglob("*.pkl")) - others:
        file.unlink(missing_ok=True)
