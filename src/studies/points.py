"""The points of a sweep: which keys each job sets, and the name of its folder."""

import itertools
import json
import re
from typing import Any

from src.config_errors import Override, parse
from src.errors import ConfigError
from src.redaction import Redactor

Point = list[str]  # overrides, as on the command line
Axis = list[Point]  # one of these is chosen for each job
CROSSED, PAIRED, LISTED, SEEDS = "crossed", "paired", "listed", "seeds"
KEY = re.compile(r"\+{0,2}(?!hydra)[A-Za-z][\w./]*")
STUDY_KEYS = ("question", LISTED, PAIRED, CROSSED, SEEDS, "budget")


def is_sweep(override: str) -> bool:
    """Whether the override lists several values."""
    return parse([override])[0].is_sweep_override()


def expand_points(overrides: list[str], study: dict[str, Any] | None) -> list[Point]:
    """Every combination of what the study and the overrides list, in their order; last varies fastest.

    A study's `listed` points and its `paired` lists, walked together, are each combined with all else as one. A key of the
    command line takes the place of the same key in the study.

    Raises:
        ConfigError: If a sweep is over a range without steps, a swept key is given twice, or the study is not of the form that
            conf/study/ shows.
    """
    axes = _study_axes(study or {})
    for override in parse_sweep(overrides):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axis = [[override.input_line or ""]]
        elif override.is_discrete_sweep():
            axis = [[f"{key}={value}"] for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(f"{override.input_line}: a sweep needs listed values, such as {key}=1,2 or {key}=range(1,4)")
        for joint in (LISTED, PAIRED):
            axes[joint] = _without(bare(key), axes[joint])
        axes[f"={bare(key)}"] = axis
    return [list(itertools.chain(*chosen)) for chosen in itertools.product(*(axis for axis in axes.values() if any(axis)))]


def parse_sweep(overrides: list[str]) -> list[Override]:
    """Hydra's reading of them; raises ConfigError, naming both, if values are listed for a key that is given again."""
    parsed = parse(overrides)
    given: dict[str, Override] = {}
    for override in parsed:
        earlier = given.setdefault(bare(override.get_key_element()), override)
        if earlier is not override and (earlier.is_sweep_override() or override.is_sweep_override()):
            raise ConfigError(f"{earlier.input_line} and {override.input_line}: the same key twice; a sweep takes one of them")
    return parsed


def _without(key: str, axis: Axis) -> Axis:
    """Points that no longer set this key; those that differed in nothing else become one."""
    left = [[word for word in point if _key(word) != key] for point in axis]
    return axis if left == axis else [point for number, point in enumerate(left) if point not in left[:number]]


def _study_axes(study: dict[str, Any]) -> dict[str, Axis]:
    """What is combined: by name what is chosen together, by `=key` the values of one key."""
    if unknown := set(study) - set(STUDY_KEYS):
        hint = "; a study's file has to begin with the line '# @package _global_'" if "study" in unknown else ""
        raise ConfigError(f"study.{min(unknown)}: no such key; allowed are {', '.join(STUDY_KEYS)}{hint}")
    axes = {LISTED: _listed(study.get(LISTED) or []), PAIRED: _paired(study.get(PAIRED) or {})}
    for key, values in _mapping(CROSSED, study.get(CROSSED) or {}).items():
        axes[f"={bare(key)}"] = [[_word(key, value)] for value in _list(f"{CROSSED}.{key}", values)]
    given = [key for joint in (LISTED, PAIRED) for key in dict.fromkeys(_key(word) for point in axes[joint] for word in point)]
    given += [name[1:] for name in axes if name.startswith("=")]
    if seeds := _list(SEEDS, study.get(SEEDS) or []):
        given.append("seed")
        axes["=seed"] = [[f"seed={seed}"] for seed in seeds]
    if twice := [key for number, key in enumerate(given) if key in given[:number]]:
        raise ConfigError(f"study: {twice[0]} is given twice; a key stands in one of {LISTED}, {PAIRED}, {CROSSED} and {SEEDS}")
    return axes


def _listed(points: Any) -> Axis:
    """One point for each mapping of keys to values."""
    return [
        [_word(key, value) for key, value in _mapping(f"{LISTED}[{number}]", point).items()]
        for number, point in enumerate(_list(LISTED, points))
    ]


def _paired(lists: Any) -> Axis:
    """The first values of all keys, then the second ones, and so on."""
    columns = {key: _list(f"{PAIRED}.{key}", values) for key, values in _mapping(PAIRED, lists).items()}
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in columns.items())
        raise ConfigError(f"study.{PAIRED}: lists that are walked together need one length; {lengths}")
    return [[_word(key, value) for key, value in zip(columns, row, strict=True)] for row in zip(*columns.values(), strict=True)]


def _mapping(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"study.{where}: {value!r}; give keys and values, such as model.init: [normal, kaiming]")
    if foreign := [key for key in value if not KEY.fullmatch(str(key))]:
        raise ConfigError(f"study.{where}.{foreign[0]}: a study sweeps keys of the configuration, such as model.init")
    return value


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"study.{where}: {value!r}; give a list, such as [{value}]")
    return value


def _word(key: str, value: Any) -> str:
    """As on the command line; text is taken as what would be typed there."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"


def bare(key: str) -> str:
    """Without what says that it is added."""
    return key.lstrip("+")


def _key(word: str) -> str:
    return bare(word.partition("=")[0])


def varying_keys(points: list[Point]) -> list[str]:
    """The keys that are not the same in all points."""
    keys = dict.fromkeys(override.partition("=")[0] for point in points for override in point)
    values = {key: {next((word for word in point if word.startswith(f"{key}=")), None) for point in points} for key in keys}
    return [key for key in keys if len(values[key]) > 1]


def job_names(points: list[Point]) -> list[str]:
    """Folder name of each job: its number and what varies, secrets left out."""
    keys = varying_keys(points)
    redactor = Redactor([])
    return [f"{n}_{job_name([redactor.word(word) for word in point], keys)}" for n, point in enumerate(points)]


def job_name(point: Point, keys: list[str]) -> str:
    """Readable and safe in a shell: `channels-8-16-32_init-normal`."""
    parts = []
    for override in point:
        key, _, value = override.partition("=")
        if key in keys:
            value = re.sub(r"(?i)(?<=\de)\+", "", value)  # 1e+30, whose plus would be read as a minus
            parts.append(re.sub(r"[^A-Za-z0-9._]+", "-", f"{key.rsplit('.', 1)[-1]}-{value}").strip("-"))
    return re.sub(r"\.{2,}", "-", "_".join(parts)).strip("-.")[:80].strip("-.") or "run"
