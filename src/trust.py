"""YAML and words that somebody else wrote: refused where they would take hours to read, or tell Hydra what to run."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from src.config_errors import parse, quoted
from src.errors import ConfigError
from src.help import CONF
from src.resume import flatten

MAX_BYTES = 256 * 1024
MAX_VALUES = 10_000  # in one file; those that an alias (*name) stands for count each time
MAX_DEPTH = 40
SEARCHPATH = "hydra.searchpath"
OWN = ("overrides.", "runtime.", "searchpath", "job.override_dirname")  # follow the command line by themselves
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def as_override(config_dir: str) -> str:
    """What says the same as `--config-dir FOLDER`; raises ConfigError if there is no such folder."""
    if not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    return f"{SEARCHPATH}=[{quoted(Path(config_dir).resolve())}]"


def check_added_folders(overrides: list[str]) -> bool:
    """Whether the overrides add folders to conf/.

    Raises:
        ConfigError: If one holds YAML that must not be read, is a package, which would be imported, or if an option leads out of
            its group's folder.
    """
    added = []
    for override in parse(overrides):
        key, _, value = (override.input_line or "").partition("=")
        if override.key_or_group == SEARCHPATH:
            places = override.value()
            added += [str(place).removeprefix("file://") for place in places] if isinstance(places, list) else []
        elif (".." in value or "$" in value) and (CONF / override.key_or_group).is_dir():
            raise ConfigError(
                f"{key}={value}: give the name of a file in conf/{key.lstrip('+')}/; --config-dir adds a folder to conf/"
            )
    for place in added:
        if "://" in place:
            raise ConfigError(f"{SEARCHPATH}: {place}; give folders")
        check_folder(Path(place))
    return bool(added)


def check_folder(folder: Path) -> None:
    """Raises ConfigError at a YAML file under the folder that is over a limit; none is loaded for that."""
    for file in yaml_files(folder):
        check_file(file)


def check_file(file: Path) -> None:
    """Raises ConfigError if a YAML file is over a limit, or none."""
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ConfigError(f"{file}: {size} bytes; a YAML file may have {MAX_BYTES}")
    try:
        check_events(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not readable as YAML ({' '.join(str(error).split())})") from error


def yaml_files(folder: Path) -> Iterator[Path]:
    """Every YAML file under the folder, behind links too, which Hydra follows."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        yield from (file for name in names if name.endswith((".yaml", ".yml")) and (file := Path(parent, name)).is_file())


def check_events(file: Path) -> None:
    """Raises ConfigError if the file would be more than MAX_VALUES values, or nested deeper than MAX_DEPTH."""
    sizes: dict[str, int] = {}  # values under each anchor (&name)
    open_nodes: list[tuple[str | None, int]] = []  # the anchor, and how many values came before it
    values = 0
    for event in yaml.parse(file.read_text(encoding="utf-8"), LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ConfigError(f"{file}: the alias *{event.anchor} stands for nothing, or for what it is part of")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, values))
            values += 1
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {} if anchor is None else {anchor: values - before}
        if values > MAX_VALUES:
            raise ConfigError(f"{file}: more than {MAX_VALUES} values, counting what aliases (*name) repeat; write fewer")
        if len(open_nodes) > MAX_DEPTH:
            raise ConfigError(f"{file}: nested deeper than {MAX_DEPTH} levels; write it flatter")


def typed_for_hydra(overrides: list[str]) -> list[str]:
    """Those that set keys of Hydra's own, but the added folders."""
    typed = [override for override in parse(overrides) if override.key_or_group.startswith("hydra")]
    return [override.input_line or "" for override in typed if override.key_or_group != SEARCHPATH]


def runs_code(word: str) -> bool:
    """Whether a word tells Hydra more than the names of a launcher and a sweeper and their numbers: what else may run code."""
    override = parse([word])[0]
    key, _, value = word.lstrip("+").partition("=")
    if key in ("hydra/launcher", "hydra/sweeper"):
        return not re.fullmatch(r"\w+", value)
    if key.startswith(("hydra.launcher.", "hydra.sweeper.")):
        return not isinstance(override.value(), int | float)
    return "hydra" in key


def check_hydra_node(composed: Any, typed: Any) -> None:
    """Raises ConfigError if files of added folders set keys of Hydra's own: its callbacks, loggers and launchers run code.

    Args:
        composed: Hydra's node with those folders.
        typed: The same from conf/ and the command line alone.
    """
    with_them, without = flatten(composed), flatten(typed)
    for key in sorted(with_them.keys() | without.keys()):
        if with_them.get(key) != without.get(key) and not key.startswith(OWN):
            raise ConfigError(
                f"hydra.{key}: set by a file outside conf/; Hydra's own keys may run code: type them on the command line"
            )
