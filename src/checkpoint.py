"""Weights and training state on disk."""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.durable import HashingFile, sha256, write_durably
from src.errors import CheckpointError
from src.models.original_weights import is_original_layout, rename_original_weights
from src.run_folder import now, write_json
from src.state import TrainState
from src.writer import Writer

LOGGER = logging.getLogger("src")
MANIFESTS = ("manifest.json", "manifest_copy.json")  # twice, since without one no checkpoint could be checked
EPOCH_FILE = re.compile(r"epoch_(\d{4,})\.pt")
MAX_NAMED = 4  # keys that an error lists
ROOM = 1.1  # times the size of the last checkpoint that the disk must have free before the next


class Checkpoints:
    """`last.pt` (the whole state), `best.pt` and `epoch_0005.pt` ... (weights) of one run, and their manifest.

    Of `last.pt` and `best.pt` the one before is kept too (`last_previous.pt`), so that one damaged file costs little. A save
    takes a copy of the state at once and writes it beside training; one that fails leaves what was there and is counted.

    Args:
        folder: The run's `checkpoints/`.
        every: Epochs between weights that are kept beside last and best; None keeps none.
        keep: How many of these stay, the newest.
        seconds: Seconds after which `save_if_due` saves; None: never.

    Attributes:
        failures: How many saves could not be written.
    """

    def __init__(self, folder: Path, every: int | None, keep: int, seconds: float | None = None) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        self.seconds = seconds
        self.failures = 0
        self.entries = read_manifest(folder) or {}
        self._writer = Writer()
        self._failed_last: Exception | None = None
        self._saved_at = time.monotonic()
        for left_over in folder.glob(".*.tmp"):  # by a process that was killed; this one has the folder to itself
            left_over.unlink()

    def save_epoch(self, state: TrainState, is_best: bool) -> None:
        """What is due after an epoch."""
        snapshot = take_snapshot(state)
        weights = {"model": snapshot["model"], "epoch": state.epoch}
        if is_best:
            self._submit("best.pt", weights, snapshot)
        if self.every is not None and state.epoch % self.every == 0:
            self._submit(f"epoch_{state.epoch:04d}.pt", weights, snapshot)
        self._submit("last.pt", snapshot, snapshot)

    def save_last(self, state: TrainState) -> None:
        """The whole state: training goes on from it, in the middle of an epoch too."""
        snapshot = take_snapshot(state)
        self._submit("last.pt", snapshot, snapshot)

    def save_if_due(self, state: TrainState) -> None:
        """The whole state, if the last save began long enough ago and nothing is being written."""
        if self.seconds is not None and time.monotonic() - self._saved_at >= self.seconds and self._writer.is_idle:
            self.save_last(state)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.finish()

    def finish(self) -> None:
        """Returns once everything is written.

        Raises:
            CheckpointError: If the newest state could not be.
        """
        self._writer.finish()
        if self._failed_last is not None:
            raise CheckpointError(
                f"{self.folder / 'last.pt'}: the end of the run could not be saved ({self._failed_last}); free some space and go"
                " on with training.resume=auto"
            ) from self._failed_last

    def _submit(self, name: str, content: dict[str, Any], snapshot: dict[str, Any]) -> None:
        facts = {key: snapshot[key] for key in ("epoch", "step", "best_score", "best_epoch")}
        self._saved_at = time.monotonic()
        self._writer.submit(name, lambda: self._write(name, content, facts))

    def _write(self, name: str, content: dict[str, Any], facts: dict[str, Any]) -> None:
        """In the writer's thread: a failure is told and counted, and training goes on."""
        try:
            self._save(name, content, facts)
            failure = None
        except Exception as error:  # a full disk, a folder that was taken away, and whatever torch makes of them
            self.failures += 1
            failure = error
            LOGGER.warning("%s: not saved (%s); what was there stays, training goes on", self.folder / name, error)
        if name == "last.pt":
            self._failed_last = failure

    def _save(self, name: str, content: dict[str, Any], facts: dict[str, Any]) -> None:
        path = self.folder / name
        before = self.entries.get(name)
        if before is not None and shutil.disk_usage(self.folder).free < ROOM * before["size"]:
            raise OSError(f"the disk has less than {ROOM * before['size'] / 2**20:.0f} MiB free")
        has_previous = EPOCH_FILE.fullmatch(name) is None
        digest = write_durably(path, saving(content), previous_of(path) if has_previous else None)
        if before is not None and has_previous:
            self.entries[previous_of(path).name] = before
        self.entries[name] = {"size": path.stat().st_size, "sha256": digest, "saved": now(), **facts}
        self._drop_old()
        for name in MANIFESTS:
            write_json(self.folder / name, self.entries)

    def _drop_old(self) -> None:
        epochs = sorted(int(match[1]) for match in map(EPOCH_FILE.fullmatch, self.entries) if match)
        for name in (f"epoch_{epoch:04d}.pt" for epoch in epochs[: -self.keep]):
            (self.folder / name).unlink(missing_ok=True)
            del self.entries[name]


def load_last(folder: Path, state: TrainState) -> None:
    """Continues `state` from `last.pt`, or from the one before if it is damaged, which a warning says.

    Args:
        folder: A run's `checkpoints/`.
        state: Of the same network.

    Raises:
        CheckpointError: If neither is there and whole, or they are of another network.
    """
    entries = read_manifest(folder)
    if entries is None:
        raise CheckpointError(
            f"{folder / MANIFESTS[0]}: damaged, and its copy too, so that no checkpoint can be checked; to trust last.pt without"
            " its check, remove both"
        )
    digests = [entry["sha256"] for entry in entries.values()]  # of all that was written whole
    problems = []
    for file in (folder / "last.pt", previous_of(folder / "last.pt")):
        try:
            saved = read_checkpoint(file, digests)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            LOGGER.warning("%s; going on from %s", problem, file.name)
        check_fit(file, saved["model"], state.model)
        state.load_state_dict(saved)
        return
    raise CheckpointError("; ".join(problems))


def saving(content: dict[str, Any]) -> Callable[[HashingFile], object]:
    """Writes a checkpoint's content into a file."""
    return lambda file: torch.save(content, file)  # type: ignore[arg-type]


def previous_of(path: Path) -> Path:
    """`last_previous.pt` of `last.pt`."""
    return path.with_stem(f"{path.stem}_previous")


def take_snapshot(state: TrainState) -> dict[str, Any]:
    """The state as it is now, in memory of its own on the CPU."""
    return copied(state.state_dict())


def copied(value: Any) -> Any:
    """The same containers and plain values with their tensors copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((key, copied(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the folder holds, by file name, from the first manifest that is whole; None where both are damaged.

    Empty where there is none: nothing has been saved yet, or somebody copied a checkpoint alone.
    """
    files = [file for name in MANIFESTS if (file := folder / name).exists()]
    for file in files:
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))
            if not entries or not all(isinstance(entry["sha256"], str) for entry in entries.values()):
                raise ValueError("an entry without its SHA-256")
            return entries
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            LOGGER.warning("%s: damaged (%s); its copy is read", file, error)
    return None if files else {}


def read_checkpoint(file: Path, digests: Sequence[str] = ()) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU. Only tensors and plain values are ever loaded, never code.

    Raises:
        CheckpointError: If the file is not there, is not what was written, or cannot be read.
    """
    if not file.is_file():
        hint = f"; did you mean {file / 'checkpoints' / 'best.pt'}?" if (file / "checkpoints").is_dir() else ""
        raise CheckpointError(f"{file}: no such checkpoint{hint}")
    if digests and sha256(file) not in digests:
        raise CheckpointError(f"{file}: damaged (its SHA-256 is not the one in {MANIFESTS[0]}); use another checkpoint")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what is not a checkpoint
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in first:  # torch goes on to advise what would run code from the file
            first = "it holds other things than tensors and plain values, or is of another format"
        raise CheckpointError(f"{file}: not a checkpoint that can be loaded safely ({first})") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{file}: holds {type(content).__name__}, expected a dictionary of named tensors")
    return content


def read_weights(file: Path, model: nn.Module) -> dict[str, Any]:
    """Weights for this network from another run's checkpoint, or from a file that the original script saved.

    Raises:
        CheckpointError: If they do not fit; the message names the keys.
    """
    content = read_checkpoint(file)
    weights = content["model"] if isinstance(content.get("model"), dict) else content
    if is_original_layout(weights):
        weights = rename_original_weights(weights)
    check_fit(file, weights, model)
    return weights


def load_weights(file: Path, model: nn.Module) -> None:
    """Gives the network the weights of `read_weights`."""
    model.load_state_dict(read_weights(file, model))


def check_fit(file: Path, weights: dict[str, Any], model: nn.Module) -> None:
    """Raises CheckpointError unless keys and shapes are those of the network."""
    wanted = model.state_dict()
    problems = []
    if missing := [key for key in wanted if key not in weights]:
        problems.append(f"lacks {_some(missing)}")
    if extra := [key for key in weights if key not in wanted]:
        problems.append(f"has {_some(extra)} too")
    shared = [key for key in wanted if key in weights]
    other = [key for key in shared if getattr(weights[key], "shape", None) != wanted[key].shape]
    if other:
        shapes = [f"{key} {list(getattr(weights[key], 'shape', []))} instead of {list(wanted[key].shape)}" for key in other]
        problems.append(f"has other shapes: {_some(shapes)}")
    if problems:
        raise CheckpointError(
            f"{file} does not fit the network: it {'; it '.join(problems)};"
            " use the model.* keys and the number of classes that it was trained with"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
