"""Weights and training state, written beside training."""

import contextlib
import functools
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from src.durable import HashingFile, sha256, share_durably, write_durably, write_json
from src.errors import CheckpointError
from src.manifest import MANIFESTS, Manifest, read_entries
from src.restore import previous_of, read_checkpoint
from src.run_folder import now
from src.state import TrainState, take_snapshot
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
    leaves what was there and is counted. Where epochs are faster than the disk, the newest state goes first and takes the place
    of one that still waits; of the epochs' weights no more wait than are kept.

    Args:
        folder: The run's `checkpoints/`.
        every: Epochs between weights that are kept beside last and best; None keeps none.
        keep: How many of these stay, the newest.
        seconds: Seconds after which `save_if_due` saves; None: never.
        on_failure: Called, in another thread, for each save that could not be written.

    Attributes:
        failures: How many saves could not be written.
        saved: When the state in `last.pt` was, and how good; None before the first save of this process.
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
        self.saved: Moment | None = None
        self.entries = read_entries(folder)
        self._copied: Manifest = {}  # the entries that the second manifest has from this process
        self._writer = Writer()
        self._whole: dict[str, Moment] = {}  # whose whole state this process has written, by file name
        self._failed: dict[str, str] = {}  # why, by the name of each file that is not as it was asked for
        self._best: tuple[Content, Moment] | None = None  # that is not on the disk yet
        self._best_changes = threading.Lock()
        self._saved_at = time.monotonic()
        for left_over in folder.glob(".*.tmp"):  # by a process that was killed; this one has the folder to itself
            left_over.unlink()

    def go_on_from(self, state: TrainState) -> None:
        """Mends what a kill between two files left undone.

        Takes back a `best.pt` of an epoch after this state: trained again on a GPU, that may not be the best one again. Writes
        the epoch file that was still to come when the state was there.
        """
        best, before = (self.entries.get(name, {}) for name in ("best.pt", "best_previous.pt"))
        if best.get("epoch", 0) > state.epoch and before.get("epoch", 0) == state.best_epoch > 0:
            content = functools.partial(read_checkpoint, self.folder / "best_previous.pt", [self.entries])
            self._best = (content, {key: before[key] for key in MOMENT})
        if state.epoch and state.step == 0 and f"epoch_{state.epoch:04d}.pt" not in self.entries:
            self._submit_epoch_file(take_snapshot(state), moment_of(state))

    def save_epoch(self, state: TrainState, is_best: bool) -> None:
        """What is due after an epoch."""
        snapshot, moment = take_snapshot(state), moment_of(state)
        if is_best:
            with self._best_changes:
                self._best = (snapshot, moment)
        self._submit_state(snapshot, moment)
        self._submit_epoch_file(snapshot, moment)

    def save_last(self, state: TrainState) -> None:
        """The whole state: training goes on from it, in the middle of an epoch too."""
        self._submit_state(take_snapshot(state), moment_of(state))

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
        self._writer.submit("best.pt", self._write_best)
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

    def _submit_state(self, snapshot: Content, moment: Moment) -> None:
        self._saved_at = time.monotonic()
        self._writer.submit("state", lambda: self._write_state(snapshot, moment), is_urgent=True)

    def _submit_epoch_file(self, snapshot: dict[str, Any], moment: Moment) -> None:
        """If one is due."""
        epoch = moment["epoch"]
        if self.every is not None and epoch % self.every == 0:
            weights = {"model": snapshot["model"], "epoch": epoch}
            place = f"epoch file {epoch // self.every % self.keep}"  # also of the one that goes when this one comes
            self._writer.submit(place, lambda: self._write(f"epoch_{epoch:04d}.pt", weights, moment))

    def _write_state(self, snapshot: Content, moment: Moment) -> None:
        self._write_best()  # first: no last.pt may know of a best epoch whose weights are not there
        self._write("last.pt", snapshot, moment)

    def _write_best(self) -> None:
        if (best := self._best) is not None:
            self._write("best.pt", *best)
            with self._best_changes:
                if "best.pt" not in self._failed and self._best is best:
                    self._best = None

    def _export_best(self) -> None:
        best, exported = self.entries.get("best.pt"), self.entries.get(EXPORTED, {})
        if best is not None and exported.get("of") != best["sha256"]:
            facts = {key: best[key] for key in MOMENT if key in best}  # a file that lay there without a manifest has none
            content = functools.partial(read_checkpoint, self.folder / "best.pt", [self.entries])
            self._writer.submit(EXPORTED, lambda: self._write(EXPORTED, content, facts | {"of": best["sha256"]}))

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

    def _save(self, name: str, content: Content, moment: Moment) -> None:
        path = self.folder / name
        standing = self._standing(path) if name in GENERATIONS else None
        previous = previous_of(path) if standing else None
        entries = self.entries | ({previous.name: standing} if previous and standing else {})
        self._copy_manifest()

        def announce(size: int, digest: str) -> None:  # before the rename, so that no file is ever there without its SHA-256
            entries[name] = {"size": size, "sha256": digest, "saved": now(), **moment}
            if EPOCH_FILE.fullmatch(name):
                self._drop_old(entries, name)
            write_json(self.folder / MANIFESTS[0], entries)

        twin = next((other for other, held in self._whole.items() if held is moment), None) if name in GENERATIONS else None
        facts = self.entries[twin] if twin else {}
        if not twin or not share_durably(path, self.folder / twin, previous, lambda: announce(facts["size"], facts["sha256"])):
            self._check_room(name)
            write_durably(path, saving(name, content), previous, announce)
        self.entries = entries
        if name in GENERATIONS:
            self._whole[name] = moment
        if name == "last.pt":
            self.saved = moment
        self._copy_manifest()

    def _copy_manifest(self) -> None:
        """Lets the second manifest say what each file holds, while the first may say what is about to take its place."""
        if self._copied is not self.entries and self.entries:
            write_json(self.folder / MANIFESTS[1], self.entries)
            self._copied = self.entries

    def _check_room(self, name: str) -> None:
        before = self.entries.get(name)
        if before is not None and shutil.disk_usage(self.folder).free < ROOM * before["size"]:
            raise OSError(f"the disk has less than {ROOM * before['size'] / 2**20:.0f} MiB free")

    def _standing(self, path: Path) -> dict[str, Any] | None:
        """The manifest's entry of what the file holds now; None if it is damaged, or cannot be read, and not worth keeping."""
        entry = self.entries.get(path.name)
        with contextlib.suppress(OSError):
            if entry and path.exists() and (path.name in self._whole or sha256(path) == entry["sha256"]):
                return entry
        return None

    def _drop_old(self, entries: Manifest, newest: str) -> None:
        """Makes room for the weights of another epoch."""
        epochs = sorted(int(match[1]) for match in map(EPOCH_FILE.fullmatch, entries) if match and match[0] != newest)
        for name in (f"epoch_{epoch:04d}.pt" for epoch in epochs[: max(len(epochs) - self.keep + 1, 0)]):
            (self.folder / name).unlink(missing_ok=True)
            del entries[name]


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
