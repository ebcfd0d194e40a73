"""Weights that the original script, or LeeJunHyun's Image_Segmentation, saved for AttU_Net."""

import re
from typing import Any

# Level n of the original (1 finest, 5 deepest) is encoder level n-1; its UpN, AttN and Up_convN are decoder stage 5-n.
ENCODER = re.compile(r"Conv(\d)\.conv\.(.+)")
DECODER = re.compile(r"(Up|Att|Up_conv)(\d)\.(\w+)\.(.+)")
HIDDEN = re.compile(r"gates\.(\d+)\.from_signal\.0\.weight")
GATE_PARTS = {"W_g": "from_signal", "W_x": "from_skip", "psi": "score"}


def is_original_layout(weights: dict[str, Any]) -> bool:
    """Whether the keys are those of the original script, with or without DataParallel's `module.`."""
    return any(key.removeprefix("module.").startswith("Conv1.conv.") for key in weights)


def rename_original_weights(weights: dict[str, Any]) -> dict[str, Any]:
    """The same tensors under the names of `AttU_Net`; logits are those that the original computes.

    Covers the original script with and without ConvTranspose and LeeJunHyun's layout. Keys that belong to none of
    them are kept, so that loading names them.
    """
    bare = {key.removeprefix("module."): value for key, value in weights.items()}
    return {_rename(key): value for key, value in bare.items()}


def gate_channels_of(weights: dict[str, Any]) -> list[int]:
    """`model.gate_channels` that weights of `AttU_Net` were made with."""
    stages = sorted((int(match[1]) for match in map(HIDDEN.fullmatch, weights) if match), reverse=True)
    shapes = [getattr(weights[f"gates.{stage}.from_signal.0.weight"], "shape", ()) for stage in stages]
    return [width for shape in shapes for width in shape[:1]]


def _rename(key: str) -> str:
    if key.startswith("Conv_1x1."):
        return key.replace("Conv_1x1.", "head.")
    if match := ENCODER.fullmatch(key):
        return f"encoder.levels.{int(match[1]) - 1}.{match[2]}"
    if match := DECODER.fullmatch(key):
        kind, level, part, rest = match.groups()
        stage = 5 - int(level)
        if kind == "Up_conv":
            return f"merge.{stage}.{rest}"
        if kind == "Att":
            return f"gates.{stage}.{GATE_PARTS.get(part, part)}.{rest}"
        return f"upsample.{stage}.{_upsample_index(part, rest)}"
    return key


def _upsample_index(part: str, rest: str) -> str:
    """`UpConv` counts: 0 the doubling, 1 the convolution, 2 its BatchNorm."""
    if part == "Conv":  # the original: Conv.0 is the convolution, Conv.1 its BatchNorm
        index, _, tail = rest.partition(".")
        return f"{int(index) + 1}.{tail}" if index.isdecimal() else rest
    if rest[0].isdigit():  # LeeJunHyun: up.0 doubles, up.1 is the convolution, up.2 its BatchNorm
        return rest
    return f"0.{rest}"  # the original's ConvTranspose is up.weight and up.bias
