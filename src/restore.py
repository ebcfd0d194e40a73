"""Checkpoints read back: checked first, never as code, and the one before where the newest is damaged."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from src.durable import sha256
from src.errors import CheckpointError
from src.models.original_weights import gate_channels_of, is_original_layout, rename_original_weights
from src.resume import STATES
from src.state import TrainState

LOGGER = logging.getLogger("src")
MANIFESTS = ("manifest.json", "manifest_copy.json")  # twice, since without one no checkpoint could be checked
MAX_NAMED = 4  # keys that an error lists


def load_last(folder: Path, state: TrainState) -> None:
    """Continues `state` from `last.pt`, or from the next that is whole if it is damaged, which a warning says.

    Args:
        folder: A run's `checkpoints/`.
        state: Of the same network.

    Raises:
        CheckpointError: If none is there and whole, or they are of another network.
    """
    entries = read_manifest(folder)
    if entries is None:
        raise CheckpointError(
            f"{folder / MANIFESTS[0]}: damaged, and its copy too, so that no checkpoint can be checked; to trust last.pt without"
            " its check, remove both"
        )
    if not entries:
        LOGGER.warning("%s: not there, so that no checkpoint can be checked", folder / MANIFESTS[0])
    digests = [entry["sha256"] for entry in entries.values()]  # of all that was written whole
    problems = []
    for file in (folder / name for name in STATES):
        try:
            saved = read_checkpoint(file, digests)
            if missing := [key for key in state.state_dict() if key not in saved]:
                raise CheckpointError(f"{file}: lacks {_some(missing)}, so that no run can go on from it")
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            LOGGER.warning("%s; going on from %s", problem, file.name)
        check_fit(file, saved["model"], state.model)
        state.load_state_dict(saved)
        return
    raise CheckpointError("; ".join(problems))


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
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
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
    try:
        is_whole = not digests or sha256(file) in digests
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); give access, or use another checkpoint") from error
    if not is_whole:
        raise CheckpointError(f"{file}: damaged (its SHA-256 is not the one in {MANIFESTS[0]}); use another checkpoint")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
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
    if {key.partition(".")[0] for key in wanted if getattr(weights.get(key), "shape", None) != wanted[key].shape} == {"gates"}:
        problems.append(f"needs model.gate_channels={gate_channels_of(weights)}".replace(", ", ","))
    if problems:
        raise CheckpointError(
            f"{file} does not fit the network: it {'; it '.join(problems)};"
            " use the model.* keys and the number of classes that it was trained with"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def previous_of(path: Path) -> Path:
    """`last_previous.pt` of `last.pt`."""
    return path.with_stem(f"{path.stem}_previous")
