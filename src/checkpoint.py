"""Weights and training state, written beside training."""

import copy
import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from src.durable import HashingFile, sha256, write_durably
from src.errors import CheckpointError
from src.restore import MANIFESTS, previous_of, read_manifest
from src.run_folder import now, write_json
from src.state import TrainState
from src.writer import Writer

LOGGER = logging.getLogger("src")
GENERATIONS = ("last.pt", "best.pt")  # of these the one before is kept
EPOCH_FILE = re.compile(r"epoch_(\d{4,})\.pt")
ROOM = 1.1  # times the size of the last checkpoint that the disk must have free before the next


class Checkpoints:
    """`last.pt` (the whole state), `best.pt` and `epoch_0005.pt` ... (weights) of one run, and their manifest.

    `best.safetensors` has the same weights as `best.pt`, for other programs. Of `last.pt` and `best.pt` the one before is kept
    too (`last_previous.pt`), so that one damaged file costs little. A save takes a copy of the state at once and writes it
    beside training; one that fails leaves what was there and is counted.

    Args:
        folder: The run's `checkpoints/`.
        every: Epochs between weights that are kept beside last and best; None keeps none.
        keep: How many of these stay, the newest.
        seconds: Seconds after which `save_if_due` saves; None: never.
        on_failure: Called, in another thread, for each save that could not be written.

    Attributes:
        failures: How many saves could not be written.
    """

    def __init__(
        self,
        folder: Path,
        every: int | None,
        keep: int,
        seconds: float | None = None,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        self.seconds = seconds
        self.on_failure = on_failure
        self.failures = 0
        self.entries = read_manifest(folder) or {file.name: describe_file(file) for file in folder.glob("*.pt")}
        self._writer = Writer()
        self._failed_last: Exception | None = None
        self._written: set[str] = set()  # by this process
        self._newest: dict[str, dict[str, Any]] = {}  # content that was asked to be saved, by file name
        self._unsaved: dict[str, Callable[[], None]] = {}  # what failed and is tried again; of last.pt a newer one comes
        self._saved_at = time.monotonic()
        for left_over in folder.glob(".*.tmp"):  # by a process that was killed; this one has the folder to itself
            left_over.unlink()

    def save_epoch(self, state: TrainState, is_best: bool) -> None:
        """What is due after an epoch."""
        snapshot = take_snapshot(state)
        weights = {"model": snapshot["model"], "epoch": state.epoch}
        if is_best:
            self._submit("best.pt", weights, snapshot)
            self._submit("best.safetensors", weights, snapshot)
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
        if kind is not KeyboardInterrupt:  # a second Ctrl-C ends it at once
            self._writer.finish()

    def finish(self) -> None:
        """Returns once everything is written.

        Raises:
            CheckpointError: If the newest state could not be.
        """
        self._writer.finish()
        self._try_again()
        self._writer.finish()
        if self._failed_last is not None:
            raise CheckpointError(
                f"{self.folder / 'last.pt'}: the end of the run could not be saved ({self._failed_last}); free some space and go"
                " on with training.resume=auto"
            ) from self._failed_last

    @property
    def unsaved(self) -> list[str]:
        """Files that could not be written, and were not since."""
        return sorted(self._unsaved)

    def _submit(self, name: str, content: dict[str, Any], snapshot: dict[str, Any]) -> None:
        facts = {key: snapshot[key] for key in ("epoch", "step", "best_score", "best_epoch")}
        self._saved_at = time.monotonic()
        self._newest[name] = content
        self._unsaved.pop(name, None)
        if name == "last.pt":
            self._try_again()
        self._writer.submit(name, lambda: self._write(name, content, facts))

    def _try_again(self) -> None:
        for name in list(self._unsaved):
            self._writer.submit(name, self._unsaved.pop(name))

    def _write(self, name: str, content: dict[str, Any], facts: dict[str, Any]) -> None:
        """In the writer's thread: a failure is told and counted, and training goes on."""
        try:
            self._save(name, content, facts)
            failure = None
        except Exception as error:  # a full disk, a folder that was taken away, and whatever torch makes of them
            self.failures += 1
            self.on_failure()
            failure = error
            LOGGER.warning("%s: not saved (%s); what was there stays, training goes on", self.folder / name, error)
        if name == "last.pt":
            self._failed_last = failure
        elif failure is not None and self._newest[name] is content:
            self._unsaved[name] = lambda: self._write(name, content, facts)

    def _save(self, name: str, content: dict[str, Any], facts: dict[str, Any]) -> None:
        path = self.folder / name
        before = self.entries.get(name)
        if before is not None and shutil.disk_usage(self.folder).free < ROOM * before["size"]:
            raise OSError(f"the disk has less than {ROOM * before['size'] / 2**20:.0f} MiB free")
        standing = self._standing(path) if name in GENERATIONS else None
        previous = previous_of(path) if standing else None
        entries = self.entries | ({previous.name: standing} if previous and standing else {})

        def announce(size: int, digest: str) -> None:  # before the rename, so that no file is ever there without its SHA-256
            entries[name] = {"size": size, "sha256": digest, "saved": now(), **facts}
            for manifest in MANIFESTS:
                write_json(self.folder / manifest, entries)

        write_durably(path, saving(name, content), previous, announce)
        self.entries = entries
        self._written.add(name)
        self._drop_old()

    def _standing(self, path: Path) -> dict[str, Any] | None:
        """The manifest's entry of what the file holds now; None if it is damaged, and not worth keeping for a newer one."""
        if not path.exists():
            return None
        if path.name in self._written:
            return self.entries[path.name]
        digest = sha256(path)  # another process wrote it, and may have been killed between manifest and rename
        return next((entry for entry in self.entries.values() if entry["sha256"] == digest), None)

    def _drop_old(self) -> None:
        epochs = sorted(int(match[1]) for match in map(EPOCH_FILE.fullmatch, self.entries) if match)
        for name in (f"epoch_{epoch:04d}.pt" for epoch in epochs[: -self.keep]):
            (self.folder / name).unlink(missing_ok=True)
            del self.entries[name]


def describe_file(file: Path) -> dict[str, Any]:
    """A manifest's entry for a file that lies there without one."""
    return {"size": file.stat().st_size, "sha256": sha256(file)}


def saving(name: str, content: dict[str, Any]) -> Callable[[HashingFile], object]:
    """Writes a checkpoint's content into a file of this name; for other programs, weights alone, where it is a .safetensors."""
    if name.endswith(".safetensors"):
        weights = {key: tensor.contiguous() for key, tensor in content["model"].items()}  # the format knows no channels_last
        return lambda file: file.write(to_safetensors(weights, {"format": "pt"}))
    return lambda file: torch.save(content, file)  # type: ignore[arg-type]


def take_snapshot(state: TrainState) -> dict[str, Any]:
    """The state as it is now, in memory of its own on the CPU."""
    return copied(state.state_dict())


def copied(value: Any) -> Any:
    """The same containers and plain values with their tensors copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):  # of any kind: a Counter is not made of pairs
        new = copy.copy(value)
        for key in new:
            new[key] = copied(new[key])
        return new
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
