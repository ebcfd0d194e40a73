"""Folders that appear whole or not at all."""

import contextlib
import errno
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

HELD = ".held"  # a file in a folder that is being filled, locked while its writer lives


@contextlib.contextmanager
def publishing(final: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `final` in one step at the end; somebody else's, if it came first, stays.

    A process that dies, or an exception, leaves nothing under that name; what killed ones left beside it is removed.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_overs(final.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.partial_", dir=final.parent))
    try:
        with (partial / f"{HELD}_soon").open("wb") as held:
            with contextlib.suppress(OSError):  # a file system without locks: what is left there stays
                fcntl.flock(held, fcntl.LOCK_EX)
                (partial / f"{HELD}_soon").rename(partial / HELD)  # so that nobody finds it before it is locked
            yield partial
            for marker in partial.glob(f"{HELD}*"):
                marker.unlink()
            partial.chmod(0o755)  # mkdtemp gives its folders to the owner alone
            try:
                partial.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # which say that the other writer won
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_left_overs(folder: Path) -> None:
    for marker in folder.glob(f".*.partial_*/{HELD}"):
        with contextlib.suppress(OSError), marker.open("r+b") as held:  # its writer lives, or another process removes it
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(marker.parent, ignore_errors=True)
