"""Weights and training state, written beside training."""

import contextlib
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

from src.durable import HashingFile, sha256, share_durably, write_durably
from src.errors import CheckpointError
from src.restore import MANIFESTS, previous_of, read_checkpoint, read_manifest
from src.run_folder import now, write_json
from src.state import TrainState
from src.writer import Writer

LOGGER = logging.getLogger("src")
GENERATIONS = ("last.pt", "best.pt")  # of these the one before is kept
EPOCH_FILE = re.compile(r"epoch_(\d{4,})\.pt")
EXPORTED = "best.safetensors"
MOMENT = ("epoch", "step", "best_score", "best_epoch")
Moment = dict[str, Any]  # one object a save, by which it is known again
Content = dict[str, Any] | Callable[[], dict[str, Any]]
ROOM = 1.1  # times the size of the last checkpoint that the disk must have free before the next


class Checkpoints:
    """`last.pt` and `best.pt` (the whole state), `epoch_0005.pt` ... (weights) of one run, and their manifest.

    While the last epoch is the best one, both are names of one file, which is written once. `finish` adds `best.safetensors`,
    the weights of `best.pt` for other programs. Of `last.pt` and `best.pt` the one before is kept too (`last_previous.pt`), so
    that one damaged file costs little. A save takes a copy of the state at once and writes it beside training; one that fails
    leaves what was there and is counted.

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
        self.entries = read_manifest(folder) or describe_files(folder)
        self._writer = Writer()
        self._whole: dict[str, Moment] = {}  # whose whole state this process has written, by file name
        self._failed: dict[str, str] = {}  # why, by the name of each file that is not as it was asked for
        self._best: tuple[Content, Moment] | None = None  # that waits for room; of last.pt a newer one comes
        self._saved_at = time.monotonic()
        for left_over in folder.glob(".*.tmp"):  # by a process that was killed; this one has the folder to itself
            left_over.unlink()

    def save_epoch(self, state: TrainState, is_best: bool) -> None:
        """What is due after an epoch."""
        snapshot = take_snapshot(state)
        moment = moment_of(state)
        if is_best:
            self._submit("best.pt", snapshot, moment)
        if self.every is not None and state.epoch % self.every == 0:
            self._submit(f"epoch_{state.epoch:04d}.pt", {"model": snapshot["model"], "epoch": state.epoch}, moment)
        self._submit("last.pt", snapshot, moment)

    def save_last(self, state: TrainState) -> None:
        """The whole state: training goes on from it, in the middle of an epoch too."""
        self._submit("last.pt", take_snapshot(state), moment_of(state))

    def save_if_due(self, state: TrainState) -> None:
        """The whole state, if the last save began long enough ago and nothing is being written."""
        if self.seconds is not None and time.monotonic() - self._saved_at >= self.seconds and self._writer.is_idle:
            self.save_last(state)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not KeyboardInterrupt:  # a second Ctrl-C ends it at once
            self._writer.finish()

    def wait(self) -> None:
        """Returns once everything that was asked for is written, or could not be."""
        self._writer.finish()

    def finish(self) -> None:
        """Returns once everything is written, `best.safetensors` too.

        Raises:
            CheckpointError: If the newest state could not be.
        """
        self.wait()
        self._writer.submit("best.pt", self._retry_best)
        self.wait()
        self._export_best()
        self.wait()
        if "last.pt" in self._failed:
            raise CheckpointError(
                f"{self.folder / 'last.pt'}: the end of the run could not be saved ({self._failed['last.pt']}); free some space"
                " and go on with training.resume=auto"
            )

    @property
    def unsaved(self) -> list[str]:
        """Files that could not be written, and were not since."""
        return sorted(self._failed)

    def _submit(self, name: str, content: Content, moment: Moment) -> None:
        self._saved_at = time.monotonic()
        self._writer.submit(name, lambda: self._write(name, content, moment))

    def _export_best(self) -> None:
        best, exported = self.entries.get("best.pt"), self.entries.get(EXPORTED, {})
        if best is not None and exported.get("of") != best["sha256"]:
            facts = {key: best[key] for key in MOMENT if key in best}  # a file that lay there without a manifest has none
            self._submit(
                EXPORTED, lambda: read_checkpoint(self.folder / "best.pt", [best["sha256"]]), facts | {"of": best["sha256"]}
            )

    def _write(self, name: str, content: Content, moment: Moment) -> None:
        """In the writer's thread: a failure is told and counted, and training goes on."""
        try:
            self._save(name, content, moment)
            self._failed.pop(name, None)
        except Exception as error:  # a full disk, a folder that was taken away, and whatever torch makes of them
            self._failed[name] = str(error)  # as the error itself would keep the content in memory
            self.failures += 1
            self.on_failure()
            LOGGER.warning("%s: not saved (%s); what was there stays, training goes on", self.folder / name, self._failed[name])
        if name == "best.pt":
            self._best = (content, moment) if name in self._failed else None
        elif name == "last.pt" and name not in self._failed:
            self._retry_best()

    def _retry_best(self) -> None:
        if self._best is not None:
            self._write("best.pt", *self._best)

    def _save(self, name: str, content: Content, moment: Moment) -> None:
        path = self.folder / name
        standing = self._standing(path) if name in GENERATIONS else None
        previous = previous_of(path) if standing else None
        entries = self.entries | ({previous.name: standing} if previous and standing else {})

        def announce(size: int, digest: str) -> None:  # before the rename, so that no file is ever there without its SHA-256
            entries[name] = {"size": size, "sha256": digest, "saved": now(), **moment}
            for manifest in MANIFESTS:
                write_json(self.folder / manifest, entries)

        twin = next((other for other, held in self._whole.items() if held is moment), None) if name in GENERATIONS else None
        facts = self.entries[twin] if twin else {}
        if not twin or not share_durably(path, self.folder / twin, previous, lambda: announce(facts["size"], facts["sha256"])):
            self._check_room(name)
            write_durably(path, saving(name, content), previous, announce)
        self.entries = entries
        if name in GENERATIONS:
            self._whole[name] = moment
        self._drop_old()

    def _check_room(self, name: str) -> None:
        before = self.entries.get(name)
        if before is not None and shutil.disk_usage(self.folder).free < ROOM * before["size"]:
            raise OSError(f"the disk has less than {ROOM * before['size'] / 2**20:.0f} MiB free")

    def _standing(self, path: Path) -> dict[str, Any] | None:
        """The manifest's entry of what the file holds now; None if it is damaged, or cannot be read, and not worth keeping."""
        if not path.exists():
            return None
        if path.name in self._whole:
            return self.entries[path.name]
        try:
            digest = sha256(path)  # another process wrote it, and may have been killed between manifest and rename
        except OSError:
            return None
        return next((entry for entry in self.entries.values() if entry["sha256"] == digest), None)

    def _drop_old(self) -> None:
        epochs = sorted(int(match[1]) for match in map(EPOCH_FILE.fullmatch, self.entries) if match)
        for name in (f"epoch_{epoch:04d}.pt" for epoch in epochs[: -self.keep]):
            (self.folder / name).unlink(missing_ok=True)
            del self.entries[name]


def describe_files(folder: Path) -> dict[str, Any]:
    """A manifest's entries for files that lie there without one, but for those that cannot be read."""
    entries = {}
    for file in folder.glob("*.pt"):
        with contextlib.suppress(OSError):
            entries[file.name] = {"size": file.stat().st_size, "sha256": sha256(file)}
    return entries


def saving(name: str, content: Content) -> Callable[[HashingFile], object]:
    """Writes a checkpoint's content into a file of this name; for other programs, weights alone, where it is a .safetensors."""
    held = content() if callable(content) else content
    if name == EXPORTED:
        weights = {key: tensor.contiguous() for key, tensor in held["model"].items()}  # the format knows no channels_last
        return lambda file: file.write(to_safetensors(weights, {"format": "pt"}))
    return lambda file: torch.save(held, file)  # type: ignore[arg-type]


def moment_of(state: TrainState) -> Moment:
    """When a state was, and how good, for the manifest."""
    return {key: getattr(state, key) for key in MOMENT}


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
