"""A run as one row of TensorBoard's HPARAMS tab, with the same columns whatever the run was made of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,  # type: ignore[attr-defined]
    DATA_TYPE_STRING,  # type: ignore[attr-defined]
    Experiment,  # type: ignore[attr-defined]
    MetricName,  # type: ignore[attr-defined]
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo  # type: ignore[attr-defined]

from src.config import is_harmless
from src.help import CONF
from src.resume import flatten

GROUPS = ("model", "dataset", "augmentation", "loss", "optimizer", "scheduler")
METRICS = ("val/miou", "val/pixel_accuracy", "val/loss")  # the last value of each
TARGET = "._target_"


def row(config: dict[str, Any], overrides: Sequence[str], monitored: str) -> list[Summary]:
    """What the tab reads: the columns, and this run's values in them.

    TensorBoard takes the columns of the first run that it finds for all of them, and a column in which one run has a number
    and another a text becomes text. So they follow from `conf/` alone, and a value of the other kind stays empty.

    Args:
        config: The resolved configuration, without secrets.
        overrides: Words of the command line; the keys that they set are the columns shown first.
        monitored: Tag of the score that decides what is best.
    """
    own = flatten(config)
    known = columns(own)
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    experiment, start = Experiment(), SessionStartInfo()
    for key, is_number in known.items():
        name = key.removesuffix(TARGET)
        kind = DATA_TYPE_FLOAT64 if is_number else DATA_TYPE_STRING
        experiment.hparam_infos.add(name=name, type=kind, differs=name in given)
        if is_number and _is_number(own.get(key)):
            start.hparams[name].number_value = own[key]
        elif not is_number and key in own:
            start.hparams[name].string_value = _words(own[key])
    for tag in dict.fromkeys([best_tag(monitored), monitored, *METRICS]):
        experiment.metric_infos.add(name=MetricName(tag=tag))
    return [
        _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
    ]


def best_tag(monitored: str) -> str:
    """Of the curve whose last point is the best score so far, which is what the tab shows of a curve."""
    return f"best/{monitored}"


def columns(own: dict[str, Any]) -> dict[str, bool]:
    """Keys that alter results, of every option in `conf/` and of the run itself, and whether each holds numbers."""
    found: dict[str, list[Any]] = {}
    for file in [CONF / "config.yaml", *(file for group in GROUPS for file in sorted((CONF / group).glob("*.yaml")))]:
        group = "" if file.parent == CONF else file.parent.name
        for key, value in flatten(_read(file), group).items():
            found.setdefault(key, []).append(value)
    own_alone = {key: [value] for key, value in own.items() if key not in found}
    kept = {key: values for key, values in (found | own_alone).items() if not {"defaults", "hydra"} & set(key.split("."))}
    return {key: _holds_numbers(values, found) for key, values in kept.items() if not is_harmless(key)}


def _read(file: Path) -> dict[str, Any]:
    """An option; nothing of one that cannot be read, for it need not be the one that this run is made of."""
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _holds_numbers(values: Sequence[Any], found: dict[str, list[Any]]) -> bool:
    """Nulls aside; `${training.epochs}` is what that key is."""
    told = [value for value in values if value is not None]
    named = [found.get(value[2:-1], [value]) if isinstance(value, str) and value.startswith("${") else [value] for value in told]
    return bool(told) and all(_is_number(value) for options in named for value in options)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(value: Any) -> str:
    """`AttU_Net`, `64-128-256`, `null`."""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return "-".join(map(str, value))
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith(("src.", "torch.")) else value
    return json.dumps(value)


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))])
