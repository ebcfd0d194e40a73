"""What each file in a run's `checkpoints/` is: its SHA-256, by its name."""

import contextlib
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from src.durable import sha256
from src.errors import CheckpointError

LOGGER = logging.getLogger("src")
# Two, since without one no checkpoint could be checked. While a file is being replaced, the first one says what comes and the
# second what is there: whenever the process is killed, one of them has the digest of what lies under the name.
MANIFESTS = ("manifest.json", "manifest_copy.json")
MAX_BYTES = 2**24
Manifest = dict[str, Any]  # an Entry for each file's name


@with_config(ConfigDict(extra="allow", strict=True))
class Entry(TypedDict):
    """What a manifest must say of a file; when its state was and how good is there too."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


ENTRIES = TypeAdapter(Annotated[dict[str, Entry], Field(min_length=1)])


def read_manifests(folder: Path) -> list[Manifest]:
    """The manifests that are whole, the first one first.

    Empty where there are none: nothing has been saved yet, or somebody copied a checkpoint alone.

    Raises:
        CheckpointError: If none of those that are there is whole.
    """
    files = [file for name in MANIFESTS if (file := folder / name).exists()]
    whole = []
    for file in files:
        try:
            if (size := file.stat().st_size) > MAX_BYTES:
                raise ValueError(f"{size} bytes; a manifest has at most {MAX_BYTES}")
            whole.append(dict(ENTRIES.validate_json(file.read_bytes())))
        except (OSError, ValueError) as error:
            LOGGER.warning("%s: damaged (%s); its copy is read", file, _first_problem(error))
    if files and not whole:
        raise CheckpointError(
            f"{files[0]}: damaged, and its copy too, so that no checkpoint can be checked; to trust the checkpoints without their"
            " check, remove both"
        )
    return whole


def read_entries(folder: Path) -> Manifest:
    """What the manifests say of each file; of one that was being replaced, what it holds.

    Raises:
        CheckpointError: If both manifests are damaged.
    """
    manifests = read_manifests(folder)
    if manifests and all(manifest == manifests[0] for manifest in manifests):
        return manifests[0]
    found = _describe_files(folder)
    told = {(name, entry["sha256"]): entry for manifest in manifests for name, entry in manifest.items()}
    known = {name: told[name, entry["sha256"]] for name, entry in found.items() if (name, entry["sha256"]) in told}
    return known if manifests else found


def _describe_files(folder: Path) -> Manifest:
    """Entries for the files that lie there, but for those that cannot be read."""
    entries = {}
    for file in folder.glob("*.pt"):
        with contextlib.suppress(OSError):
            entries[file.name] = {"size": file.stat().st_size, "sha256": sha256(file)}
    return entries


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
