"""Checkpoints read back: checked first, never as code, and the next whole one where the newest is damaged."""

import logging
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from src.durable import sha256
from src.errors import CheckpointError
from src.manifest import MANIFESTS, Manifest, read_manifests
from src.models.original_weights import gate_channels_of, is_original_layout, rename_original_weights
from src.resume import STATES
from src.state import TrainState, find_misfits

LOGGER = logging.getLogger("src")
MAX_NAMED = 4  # keys that an error lists


def load_last(folder: Path, state: TrainState) -> None:
    """Continues `state` from `last.pt`, or from the next that is whole if it is damaged, which a warning says.

    Args:
        folder: A run's `checkpoints/`.
        state: Of the same network.

    Raises:
        CheckpointError: If none is there and whole, or they are of another network.
    """
    manifests, problems = read_manifests_or_warn(folder), []
    for file in (folder / name for name in STATES):
        try:
            _load(file, manifests, state)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            LOGGER.warning("%s; going on from %s", problem, file.name)
        return
    raise CheckpointError("; ".join(problems))


def _load(file: Path, manifests: Sequence[Manifest], state: TrainState) -> None:
    saved, own = read_checkpoint(file, manifests), state.state_dict()
    if missing := [key for key in own if key not in saved]:
        raise CheckpointError(f"{file}: lacks {_some(missing)}, so that no run can go on from it")
    check_fit(file, saved["model"], state.model)
    if misfits := list(find_misfits(saved, own)):
        raise CheckpointError(f"{file}: not what a run saves: {_some(misfits)}")
    counts = [saved["epoch"], saved["step"], saved["best_epoch"], saved["totals"].get("images")]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise CheckpointError(f"{file}: not what a run saves: epoch, step, best_epoch and totals.images are {counts}")
    try:
        state.load_state_dict(saved)
    except Exception as error:  # each optimizer and schedule has its own for what it cannot take
        raise CheckpointError(f"{file}: holds a state that cannot be continued ({_first_line(error)})") from error


def read_manifests_or_warn(folder: Path) -> list[Manifest]:
    """As `read_manifests`, for a folder that should have them."""
    manifests = read_manifests(folder)
    if not manifests:
        LOGGER.warning("%s: not there, so that nothing says which checkpoint is which, or whole", folder / MANIFESTS[0])
    return manifests


def read_checkpoint(file: Path, manifests: Sequence[Manifest] = ()) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU. Only dense tensors and plain values are ever loaded, never code.

    Args:
        file: Written by `torch.save`, or a .safetensors.
        manifests: One of them must have the digest of this content under this very name. Without any, the checksums that
            `torch.save` writes into a file are compared.

    Raises:
        CheckpointError: If the file is not there, is not what was written, or cannot be read.
    """
    if not file.is_file():
        hint = f"; did you mean {file / 'checkpoints' / 'best.pt'}?" if (file / "checkpoints").is_dir() else ""
        raise CheckpointError(f"{file}: no such checkpoint{hint}")
    digests = [manifest[file.name]["sha256"] for manifest in manifests if file.name in manifest]
    try:
        is_whole = sha256(file) in digests if manifests else _agrees_with_its_checksums(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); give access, or use another checkpoint") from error
    if not is_whole:
        why = f"its SHA-256 is not that of {file.name} in {MANIFESTS[0]}" if manifests else "its checksums do not agree"
        raise CheckpointError(f"{file}: damaged, or another file under this name ({why}); use another checkpoint")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what is not a checkpoint
        first = _first_line(error)
        if "weights_only" in first:  # torch goes on to advise what would run code from the file
            first = "it holds other things than tensors and plain values, or is of another format"
        raise CheckpointError(f"{file}: not a checkpoint that can be loaded safely ({first})") from error
    _check_content(file, content)
    return content


def _agrees_with_its_checksums(file: Path) -> bool:
    """False if a tensor is not what was written; True also where a format has no checksums, which torch itself never looks at."""
    if not zipfile.is_zipfile(file):
        return True
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile has many kinds for what is not whole
        return False


def _check_content(file: Path, content: Any) -> None:
    for part in (content, content.get("model", {}) if isinstance(content, dict) else None):
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise CheckpointError(f"{file}: holds {type(part).__name__}, expected a dictionary of named tensors")
    for tensor in _tensors_in(content):
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
            raise CheckpointError(f"{file}: holds a tensor that is sparse, nested, quantized or without values")


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """All of them, however deeply and often they are held."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def read_weights(file: Path, model: nn.Module) -> dict[str, Any]:
    """Weights for this network from another run's checkpoint, or from a file that the original script saved.

    Raises:
        CheckpointError: If they do not fit; the message names the keys.
    """
    is_of_a_run = (file.parent / MANIFESTS[-1]).exists()
    content = read_checkpoint(file, read_manifests(file.parent) if is_of_a_run else ())
    weights = content["model"] if isinstance(content.get("model"), dict) else content
    if is_original_layout(weights):
        weights = rename_original_weights(weights)
    check_fit(file, weights, model)
    return weights


def load_weights(file: Path, model: nn.Module) -> None:
    """Gives the network the weights of `read_weights`."""
    model.load_state_dict(read_weights(file, model))


def check_fit(file: Path, weights: dict[str, Any], model: nn.Module) -> None:
    """Raises CheckpointError unless keys, shapes and kinds of number are those of the network."""
    wanted = model.state_dict()
    problems = []
    if missing := [key for key in wanted if key not in weights]:
        problems.append(f"lacks {_some(missing)}")
    if extra := [key for key in weights if key not in wanted]:
        problems.append(f"has {_some(extra)} too")
    if misfits := list(find_misfits(weights, wanted)):
        problems.append(f"has other shapes: {_some(misfits)}")
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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def previous_of(path: Path) -> Path:
    """`last_previous.pt` of `last.pt`."""
    return path.with_stem(f"{path.stem}_previous")
