"""What the JSON files of a run or a sweep hold: a model of each, which they are checked against when they are read."""

import functools
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from src.errors import UserError
from src.stored_files import MOST, MOST_BYTES, read_bytes

MOST_OF_RUN = 2**20  # bytes of a run.json; ours have some kilobytes
MOST_WORDS = 1000  # of a command line: each is parsed again, which takes milliseconds
MOST_GIVEN = 40  # characters of a wrong value that a line shows

Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(ge=-MOST, le=MOST)]
Words = Annotated[list[str], Field(max_length=MOST_WORDS)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # of a folder in this one: no path
Pair = Field(min_length=2, max_length=2)
Picture = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*=*$")]
Color = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class NotJSONError(UserError):
    """A file, or a line of one, that is not JSON: torn by a kill, or damaged."""


class Stored(BaseModel):
    """A JSON object: the keys that something reads have their types, others are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)


class Training(Stored):
    """Part of a configuration."""

    epochs: Count | None = None


class ConfigFacts(Stored):
    """`config` of run.json."""

    name: str | None = None
    seed: Count | None = None
    monitor: dict[str, str | None] | None = None
    training: Training | None = None
    dataset: dict[str, Any] | None = None


class RunFacts(Stored):
    """run.json; of an older run, and of one that has just begun, keys are missing."""

    status: str = ""
    config: ConfigFacts | None = None
    overrides: Words | None = None
    start: str | None = None
    end: str | None = None
    error: str | None = None
    host: str | None = None
    device: str | None = None
    precision: str | None = None
    short_id: str | None = None
    packages: dict[str, str] | None = None
    data_fingerprint: dict[str, str] | None = None
    protocol: dict[str, Any] | None = None
    protocol_fingerprint: str | None = None
    class_names: list[str] | None = None
    parameters: Count | None = None
    gmacs: Number | None = None
    epoch: Count | None = None
    best_epoch: Count | None = None
    best_score: Number | None = None
    best_scores: dict[str, Number | None] | None = None
    final_scores: dict[str, Number | None] | None = None
    baselines: dict[str, Number] | None = None


class PlannedJob(Stored):
    """A job of study.json."""

    name: Name
    overrides: Words
    short_id: str
    planned: dict[str, Number | None] | None = None


class StudyFacts(Stored, extra="ignore"):
    """study.json; see `Study` of src/studies/ledger.py."""

    name: str
    question: str | None
    words: Words
    monitor: dict[str, str | None]
    on_error: str
    common: dict[str, Any]
    jobs: list[PlannedJob]
    again: bool = False
    created: str = ""


class EventFacts(Stored):
    """A line of ledger.jsonl."""

    job: Count
    status: str
    time: str | None = None
    host: str | None = None
    process: int | None = None
    score: Number | None = None
    seconds: Number = 0.0
    error: str | None = None


class EpochRow(Stored):
    """A line of metrics.jsonl."""

    __pydantic_extra__: dict[str, int | float | None] = Field(init=False)  # type: ignore[assignment]
    epoch: Count


class EvaluationFacts(Stored):
    """The JSON of a stored evaluation."""

    scores: dict[str, Any]
    protocol: dict[str, Any]
    protocol_fingerprint: str
    class_names: Annotated[list[str], Field(min_length=1)]
    names: Annotated[list[str], Field(min_length=1)]
    epoch: Count = 0
    counts_sha256: str | None = None  # of the .npz beside it; older ones do not say


def read_json(folder: Path, name: str, kind: type, most: int = MOST_BYTES) -> Any:
    """What a JSON file of the folder says; raises UserError, naming file and field, where it is not of this kind."""
    return parse_json(read_bytes(folder, name, most), kind, folder / name)


def parse_json(content: bytes, kind: type, where: object) -> Any:
    """What JSON says: the keys of a `Stored`, or else an instance.

    Raises:
        NotJSONError: If it is not JSON, or nested deeper than 200 levels.
        UserError: If it is not of this kind; the line names the field.
    """
    try:
        found = _adapter(kind).validate_json(content, strict=True)
        return found.model_dump(exclude_unset=True) if isinstance(found, Stored) else found
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    key, said = ".".join(map(str, first["loc"])), first["msg"].replace("Input should", "should")
    if first["type"] == "json_invalid":
        raise NotJSONError(f"{where}: not readable as JSON ({said.removeprefix('Invalid JSON: ')})")
    if first["type"] == "missing":
        raise UserError(f"{where}: lacks {key}")
    raise UserError(f"{where}: {f'{key}: ' if key else ''}{said} (given: {repr(first['input'])[:MOST_GIVEN]})")


_adapter = functools.cache(TypeAdapter)
