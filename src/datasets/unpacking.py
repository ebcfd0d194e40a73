"""Takes known files out of an archive that nobody has to trust."""

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from src.errors import DataError

MAX_ENTRIES = 50_000
MAX_BYTES = 1_000_000_000  # of the archive, unpacked
MAX_FILE_BYTES = 10_000_000


class Capped:
    """Reads from a stream until more has come than any honest archive holds."""

    def __init__(self, stream: gzip.GzipFile, file: Path) -> None:
        self.stream = stream
        self.file = file
        self.read_so_far = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises DataError beyond the limit."""
        block = self.stream.read(size)
        self.read_so_far += len(block)
        if self.read_so_far > MAX_BYTES:
            raise DataError(f"{self.file}: unpacks to more than {MAX_BYTES:,} bytes; it is not the archive it should be")
        return block


def unpack(archive: Path, checksums: dict[str, str], inside: str, target: Path) -> None:
    """Writes the files that `checksums` names, and no others, from a tar.gz into `target`.

    Args:
        archive: Its entries lie below any one folder, as those of a repository's archive do.
        checksums: Path below `inside` to SHA-256.
        inside: The archive's folder that they lie in.
        target: An empty folder.

    Raises:
        DataError: If the archive is broken or hostile, or a file is missing or another.
    """
    missing = dict(checksums)
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=Capped(stream, archive), mode="r|") as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                if number >= MAX_ENTRIES:
                    raise DataError(f"{archive}: more than {MAX_ENTRIES:,} entries; it is not the archive it should be")
                name = place(archive, member, inside)
                if name in missing:
                    write_checked(archive, tar, member, missing.pop(name), target / name)
    except DataError:
        raise
    except (gzip.BadGzipFile, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); run this again to fetch it anew") from error
    if missing:
        raise DataError(f"{archive}: lacks {len(missing)} files, such as {inside}/{min(missing)}; is it the right address?")


def place(archive: Path, member: tarfile.TarInfo, inside: str) -> str | None:
    """Where an entry belongs below `inside`; None for what is not asked for.

    Raises:
        DataError: If its path leaves the archive, or something below `inside` is neither a file nor a folder.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise DataError(f"{archive}: its entry {member.name!r} leads out of the archive; nothing was unpacked")
    if inside not in path.parts[:2]:
        return None
    if not (member.isreg() or member.isdir()):
        raise DataError(f"{archive}: its entry {member.name!r} is no plain file; nothing was unpacked")
    return "/".join(path.parts[path.parts.index(inside) + 1 :]) if member.isreg() else None


def write_checked(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, checksum: str, target: Path) -> None:
    """Writes one file; raises DataError if it is not the one that `checksum` knows."""
    if member.size > MAX_FILE_BYTES:
        raise DataError(f"{archive}: {member.name} has {member.size:,} bytes; it is not the file it should be")
    stream = tar.extractfile(member)
    content = stream.read() if stream else b""
    if (found := hashlib.sha256(content).hexdigest()) != checksum:
        raise DataError(f"{archive}: {member.name} has SHA-256 {found} instead of {checksum}; nothing was unpacked")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
