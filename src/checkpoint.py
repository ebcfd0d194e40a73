"""Weights and training state on disk."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.errors import CheckpointError
from src.models.original_weights import is_original_layout, rename_original_weights
from src.run_folder import now, write_json
from src.state import TrainState

MANIFEST = "manifest.json"
EPOCH_FILE = re.compile(r"epoch_(\d{4,})\.pt")
MAX_NAMED = 4  # keys that an error lists


class Checkpoints:
    """`last.pt` (the whole state), `best.pt` and `epoch_0005.pt` ... (weights) of one run, and their manifest.

    Args:
        folder: The run's `checkpoints/`.
        every: Epochs between weights that are kept beside last and best; None keeps none.
        keep: How many of these stay, the newest.
    """

    def __init__(self, folder: Path, every: int | None, keep: int) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        self.entries = read_manifest(folder / MANIFEST)
        for left_over in folder.glob(".*.tmp"):  # by a process that was killed; this one has the folder to itself
            left_over.unlink()

    def save_epoch(self, state: TrainState, is_best: bool) -> None:
        """What is due after an epoch."""
        weights = {"model": state.model.state_dict(), "epoch": state.epoch}
        if is_best:
            self._save("best.pt", weights, state)
        if self.every is not None and state.epoch % self.every == 0:
            self._save(f"epoch_{state.epoch:04d}.pt", weights, state)
            self._drop_old()
        self.save_last(state)

    def save_last(self, state: TrainState) -> None:
        """The whole state: training goes on from it, in the middle of an epoch too."""
        self._save("last.pt", state.state_dict(), state)

    def load_last(self, state: TrainState) -> None:
        """Continues `state` from `last.pt`.

        Raises:
            CheckpointError: If it is not there, damaged, or of another network.
        """
        file = self.folder / "last.pt"
        entry = self.entries.get(file.name, {})
        saved = read_checkpoint(file, [entry[key] for key in ("sha256", "replaces") if entry.get(key)])
        check_fit(file, saved["model"], state.model)
        state.load_state_dict(saved)

    def _save(self, name: str, content: dict[str, Any], state: TrainState) -> None:
        path = self.folder / name
        temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            digest = sha256(temporary)
            entry = {"size": temporary.stat().st_size, "sha256": digest, "epoch": state.epoch, "step": state.step}
            entry |= {"best_score": state.best_score, "best_epoch": state.best_epoch, "saved": now()}
            before = self.entries.get(name, {}).get("sha256")
            self.entries[name] = entry | {"replaces": before}  # a kill before the next line leaves the file of `before`
            self._write_manifest()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _drop_old(self) -> None:
        epochs = sorted(int(match[1]) for match in map(EPOCH_FILE.fullmatch, self.entries) if match)
        for name in (f"epoch_{epoch:04d}.pt" for epoch in epochs[: -self.keep]):
            (self.folder / name).unlink(missing_ok=True)
            del self.entries[name]
        self._write_manifest()

    def _write_manifest(self) -> None:
        write_json(self.folder / MANIFEST, self.entries)


def read_manifest(file: Path) -> dict[str, Any]:
    """What the folder holds, by file name; empty where nothing has been saved yet."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise CheckpointError(f"{file}: damaged ({error}); remove it to go on without its checks") from error


def read_checkpoint(file: Path, digests: Sequence[str] = ()) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU. Only tensors and plain values are ever loaded, never code.

    Raises:
        CheckpointError: If the file is not there, is not what was written, or cannot be read.
    """
    if not file.is_file():
        hint = f"; did you mean {file / 'checkpoints' / 'best.pt'}?" if (file / "checkpoints").is_dir() else ""
        raise CheckpointError(f"{file}: no such checkpoint{hint}")
    if digests and sha256(file) not in digests:
        raise CheckpointError(f"{file}: damaged (its SHA-256 is not the one in {MANIFEST}); use another checkpoint")
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


def sha256(file: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
