"""The points of a sweep: which keys each job sets, and the name of its folder."""

import itertools
import re
from typing import Any

from src.config_errors import parse
from src.errors import ConfigError
from src.redaction import Redactor

Point = list[str]  # overrides, as on the command line
CROSSED = "crossed"
KEY = re.compile(r"\+{0,2}(?!hydra)[A-Za-z][\w./]*")
STUDY_KEYS = ("question", CROSSED, "seeds")


def is_sweep(override: str) -> bool:
    """Whether the override lists several values."""
    return parse([override])[0].is_sweep_override()


def expand_points(overrides: list[str], study: dict[str, Any] | None) -> list[Point]:
    """Every combination of the values that the overrides and the study list, in their order; last varies fastest.

    A key of the command line takes the place of the same key in the study.

    Raises:
        ConfigError: If a sweep is over a range without steps, or the study has a key of its own.
    """
    choices: dict[str, list[str]] = _study_choices(study or {})
    for override in parse(overrides):
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices[key] = [override.input_line or ""]
        elif override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(f"{override.input_line}: a sweep needs listed values, such as {key}=1,2 or {key}=range(1,4)")
    return [list(point) for point in itertools.product(*choices.values())]


def _study_choices(study: dict[str, Any]) -> dict[str, list[str]]:
    if unknown := set(study) - set(STUDY_KEYS):
        raise ConfigError(f"study.{min(unknown)}: no such key; allowed are {', '.join(STUDY_KEYS)}")
    crossed = study.get(CROSSED) or {}
    if foreign := [key for key in crossed if not KEY.fullmatch(str(key))]:
        raise ConfigError(f"study.{CROSSED}.{foreign[0]}: a study sweeps keys of the configuration, such as model.init")
    choices = {key: [f"{key}={value}" for value in values] for key, values in crossed.items()}
    if study.get("seeds"):
        choices["seed"] = [f"seed={seed}" for seed in study["seeds"]]
    return choices


def varying_keys(points: list[Point]) -> list[str]:
    """The keys that are not the same in all points."""
    keys = dict.fromkeys(override.partition("=")[0] for point in points for override in point)
    values = {key: {override for point in points for override in point if override.startswith(f"{key}=")} for key in keys}
    return [key for key in keys if len(values[key]) > 1]


def job_names(points: list[Point]) -> list[str]:
    """Folder name of each job: its number and what varies, secrets left out."""
    keys = varying_keys(points)
    redactor = Redactor([override for point in points for override in point])
    return [f"{n}_{job_name([redactor.text(word) for word in point], keys)}" for n, point in enumerate(points)]


def job_name(point: Point, keys: list[str]) -> str:
    """Readable and safe in a shell: `channels-8-16-32_init-normal`."""
    parts = []
    for override in point:
        key, _, value = override.partition("=")
        if key in keys:
            parts.append(re.sub(r"[^A-Za-z0-9._]+", "-", f"{key.rsplit('.', 1)[-1]}-{value}").strip("-"))
    return re.sub(r"\.{2,}", "-", "_".join(parts)).strip("-.")[:80].strip("-.") or "run"
