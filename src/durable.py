"""Files that are there whole, or not at all, and that outlive a power cut."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from src.errors import WriteError


class HashingFile:
    """Passes bytes on to a file and computes their SHA-256 on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, block: bytes | memoryview) -> int:
        """Writes all of the block."""
        self.digest.update(block)
        return self.file.write(block)

    def flush(self) -> None:
        """As the file's own."""
        self.file.flush()


def write_durably(
    path: Path,
    write: Callable[[HashingFile], object],
    previous: Path | None = None,
    announce: Callable[[int, str], object] = lambda size, digest: None,
) -> None:
    """Gives `path` a new content in one step.

    Whenever the process or the machine dies, `path` holds the old content or the new one. The old one goes only once the
    new one is on the disk and was read back as it was written.

    Args:
        path: The file.
        write: Writes the content.
        previous: Where the old content is kept; None: nowhere.
        announce: Given the size and the SHA-256 of what is about to take the place of the old content.

    Raises:
        OSError: If it cannot be written; the old content stays and nothing half-written is left.
    """
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            hashing = HashingFile(file)
            write(hashing)
            file.flush()
            os.fsync(file.fileno())
        digest = hashing.digest.hexdigest()
        if sha256(temporary) != digest:
            raise OSError(f"{path}: the disk gives back other bytes than were written")
        announce(temporary.stat().st_size, digest)
        if previous is not None and path.exists():
            keep(path, previous)
        temporary.replace(path)
    sync_folder(path.parent)


def share_durably(path: Path, existing: Path, previous: Path | None, announce: Callable[[], object]) -> bool:
    """Gives `path` the content of another file as a second name of it: nothing is written twice.

    Otherwise as `write_durably`; False, and nothing has changed, on a file system without hard links.
    """
    with replacing(path) as temporary:
        try:
            temporary.hardlink_to(existing)
        except OSError:
            return False
        announce()
        if previous is not None and path.exists():
            keep(path, previous)
        temporary.replace(path)
    sync_folder(path.parent)
    return True


class GrowingFile:
    """A file that only grows; what could not be written to it waits, whole, for the next `flush`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = b""

    @property
    def num_waiting(self) -> int:
        """Bytes that are not on the disk yet."""
        return len(self._waiting)

    def write(self, block: bytes) -> None:
        """Adds to what the next `flush` writes."""
        self._waiting += block

    def flush(self) -> None:
        """Writes all that waits, or raises OSError and leaves the file as it was."""
        if self._waiting:
            append_durably(self.path, self._waiting)
            self._waiting = b""


def append_durably(path: Path, content: bytes) -> None:
    """Adds to a file; of what a full disk took only in part, nothing stays.

    Raises:
        OSError: If it cannot be written.
    """
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            written = 0
            while written < len(content):
                written += file.write(content[written:])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` for what will take its place; nothing of that name is left afterwards."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def keep(path: Path, previous: Path) -> None:
    """Gives the content of `path` a second name, in one step, so that at no time either is missing."""
    with replacing(previous) as second_name:
        try:
            second_name.hardlink_to(path)
        except OSError:  # a file system without hard links
            path.replace(previous)
        else:
            second_name.replace(previous)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tells in one line what keeps this folder from being written to."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{folder}: cannot be written ({error.strerror or error}); make room or give access, or use hydra.run.dir=FOLDER"
        ) from error


def sync_folder(folder: Path) -> None:
    """Makes the folder's names outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Writes the file whole or not at all."""
    write_durably(path, lambda file: file.write(text.encode()))


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Readable JSON, see `as_json`."""
    replace_text(path, json.dumps(as_json(facts), indent=2, default=str) + "\n")


def as_json(value: Any) -> Any:
    """Without what JSON has no word for: numbers that are not finite become null, bytes of a name that are no text `?`."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(file: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
