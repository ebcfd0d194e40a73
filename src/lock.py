"""Whether somebody works in a folder: a lock that the system drops when its process ends, however that ends."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOOK_SECONDS = 1.5  # for which a run waits for those that only look, or correct what a dead run left


def takes_lock(file: IO[bytes]) -> bool:
    """Whether this process has the file's lock now."""
    end = time.monotonic() + LOOK_SECONDS
    while not _locks(file, fcntl.LOCK_EX):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def kept_free(folder: Path) -> Iterator[bool]:
    """Whether no process works in the folder; then none begins to until the block ends. Others who look see nobody."""
    with (folder / ".lock").open("a+b") as lock:
        yield _locks(lock, fcntl.LOCK_SH)


def is_locked(folder: Path) -> bool:
    """Whether a process works in this folder now."""
    return is_held(folder / ".lock")


def is_held(file: Path) -> bool:
    """Whether a process has the lock of this file; to look takes no right to write there."""
    if not file.is_file():  # of a stranger's folder it may be a pipe, which would be waited for
        return False
    with file.open("rb") as lock:
        return not _locks(lock, fcntl.LOCK_SH)  # shared: two that only look do not take each other for a run


def _locks(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
