"""Processes that end with the one that started them, whatever became of it."""

import os
import signal
import threading
import time
from collections.abc import Callable

from src.studies.submitted import is_local

PARENT = "TRAIN_PARENT_PROCESS"
SWEEPER = "TRAIN_SWEEP_PROCESS"
WATCH_SECONDS = 0.5


def is_child() -> bool:
    """Whether this process is a job of a sweep."""
    return PARENT in os.environ


def end_with_parent() -> None:
    """In a sweep's child and in a rank: ends this process, as SIGTERM would, once the process that started it is gone."""
    parent = os.environ.get(PARENT, os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None)
    if parent is not None:
        _watch(lambda: os.getppid() == int(parent), signal.SIGTERM, PARENT)


def end_with_sweeper() -> None:
    """In a launcher's worker on the sweep's machine: ends it once the sweep is gone, and its child with it."""
    sweeper = int(os.environ.get(SWEEPER, 0))
    if any(thread.name == SWEEPER for thread in threading.enumerate()):
        return
    if os.getppid() == sweeper:
        _watch(lambda: os.getppid() == sweeper, signal.SIGTERM, SWEEPER)
    elif sweeper and is_local():  # whose worker is the sweep's grandchild, and ignores SIGTERM
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
        _watch(lambda: _is_alive(sweeper), signal.SIGINT, SWEEPER)


def _watch(is_there: Callable[[], bool], number: signal.Signals, name: str) -> None:
    def watch() -> None:
        while is_there():
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), number)
        time.sleep(30)  # to save and say so
        os._exit(128 + number)

    threading.Thread(target=watch, name=name, daemon=True).start()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
