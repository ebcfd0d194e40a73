"""Folders that appear whole or not at all."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def publishing(final: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `final` in one step at the end; somebody else's, if it came first, stays.

    A process that dies, or an exception, leaves nothing under that name.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.partial_", dir=final.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp gives its folders to the owner alone
        try:
            partial.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # which say that the other writer won
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
