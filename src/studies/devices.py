"""The GPUs of this machine are shared out among the jobs of all sweeps: one job each, by locks that die with their processes."""

import contextlib
import fcntl
import getpass
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from src.errors import UserError
from src.studies.submitted import is_local

ALLOWED = "CUDA_VISIBLE_DEVICES"  # what CUDA itself, Slurm and containers go by
OFFERED = "TRAIN_VISIBLE_DEVICES"  # the same as the sweep was started with
LISTED = re.compile(r"^GPU (\d+): .*\(UUID: (\S+)\)", re.MULTILINE)
POLL_SECONDS = 0.5


class BusyError(UserError):
    """Every GPU has a job, and nobody was to wait for one."""


def offer_devices() -> None:
    """In a sweep's first process: remembers what it may use, for launchers that hide it from their jobs."""
    if ALLOWED in os.environ:
        os.environ[OFFERED] = os.environ[ALLOWED]


@contextlib.contextmanager
def take_device(device: str, wait: bool = True) -> Iterator[dict[str, Any]]:
    """Takes a free GPU, once there is one, where there are any and `device` asks for one.

    The lock goes to the child too, so that a GPU is not given away while the child of a killed sweep still saves.

    Args:
        device: The key `device` of the job: auto, cpu, mps, cuda, or cuda:1 for that one of those that are visible.
        wait: For a free one; else raises BusyError.

    Yields:
        Options of `subprocess.Popen` for the job's child.
    """
    visible = list_devices() if device == "auto" or device.startswith("cuda") else {}
    if not visible:
        yield {"env": dict(os.environ)}
        return
    names = list(visible)
    _, _, index = device.partition(":")
    wanted = [names[int(index)]] if index and int(index) < len(names) else names
    name, lock = _take_one({name: visible[name] for name in wanted}, wait)
    with lock:
        yield {"env": os.environ | {ALLOWED: ",".join(names) if index else name}, "pass_fds": [lock.fileno()]}


def list_devices() -> dict[str, str]:
    """Each visible GPU as CUDA is told of it, with what it is locked by: its UUID where that can be known.

    Slurm may call a different GPU 0 in every job of a machine; the UUID tells them apart.
    """
    identities = _ask_driver()
    allowed = os.environ.get(ALLOWED)
    if not allowed and is_local():  # submitit hides every GPU there unless told a number
        allowed = os.environ.get(OFFERED)
    if allowed is None:
        return {identity: identity for identity in identities.values()}
    names = [name.strip() for name in allowed.split(",")]
    if "-1" in names:  # CUDA stops reading there
        names = names[: names.index("-1")]
    return {name: identities.get(name, name) for name in names if name}


def _ask_driver() -> dict[str, str]:
    """UUID by index; empty without a driver. torch is not asked: it takes seconds and memory of every GPU."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(LISTED.findall(listing))


def _take_one(devices: dict[str, str], wait: bool) -> tuple[str, IO[bytes]]:
    folder = _lock_folder()
    told = False
    while True:
        for name, identity in devices.items():
            lock = (folder / re.sub(r"[^\w.-]", "_", identity)).open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
            else:
                return name, lock
        if not wait:
            raise BusyError("every GPU is busy")
        if not told:
            print(f"waits for a free GPU: {', '.join(devices)}", flush=True)
            told = True
        time.sleep(POLL_SECONDS)


def _lock_folder() -> Path:
    """One a user and host, which no other user can have laid there."""
    folder = Path(tempfile.gettempdir()) / f"train_devices_{getpass.getuser()}_{socket.gethostname()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077 or folder.is_symlink():
        raise UserError(f"{folder}: belongs to somebody else or is open to others; remove it, or set TMPDIR to a folder of yours")
    return folder
