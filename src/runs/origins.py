"""Which file of conf/ or which word of the command line gave a key its value."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from src.config_errors import parse
from src.help import CONF
from src.redaction import Redactor, names_secret

SEARCHPATH = "hydra.searchpath"


@dataclass(frozen=True)
class Origin:
    """One place that gives a key a value; the last one in Hydra's order counts."""

    where: str
    value: Any


def origins_of(key: str, words: list[str], is_group: bool, redactor: Redactor) -> list[Origin]:
    """In the order in which they beat each other, without secrets."""
    found = []
    for file, package in files_of(words):
        tree: Any = OmegaConf.to_container(OmegaConf.load(file))
        if is_group:
            chosen = [entry for entry in tree.get("defaults") or [] if isinstance(entry, dict)]
            values = [value for entry in chosen for name, value in entry.items() if _group(str(name)) == key]
        else:
            below = key.removeprefix(f"{package}." if package else "")
            values = _values(tree, below) if not package or below != key else []
        found += [Origin(_named(file), redactor.tree(value, is_secret=names_secret(key))) for value in values]
    for override in parse(words):
        name = override.get_key_element().lstrip("+~")
        if key == name or (key.startswith(f"{name}.") and not (CONF / name).is_dir()):
            found.append(Origin("the command line", redactor.word(override.input_line or "")))
    return found


def files_of(words: list[str]) -> list[tuple[Path, str]]:
    """The YAML files that are composed, in Hydra's order, each with the key that its content stands under."""
    places = [CONF]
    for override in parse([word for word in words if SEARCHPATH in word]):
        added = override.value()
        places += [Path(str(place).removeprefix("file://")) for place in added] if isinstance(added, list) else []
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list("config", words, RunMode.RUN).defaults
    files = []
    for default in defaults:
        file = next((place / f"{default.config_path}.yaml" for place in places if _is_file(place, default.config_path)), None)
        if file is not None:  # else it is Hydra's own, or the schema, which has no values
            files.append((file, (default.package or "").replace("_global_", "")))
    return files


def _is_file(place: Path, name: str | None) -> bool:
    return (place / f"{name}.yaml").is_file()


def _group(name: str) -> str:
    return re.sub(r"^override\s+|/|@.*", "", name)


def _values(tree: Any, key: str) -> list[Any]:
    """None or one; a key may itself have dots."""
    if not isinstance(tree, dict):
        return []
    if key in tree:
        return [tree[key]]
    first, _, rest = key.partition(".")
    return _values(tree[first], rest) if rest and first in tree else []


def _named(file: Path) -> str:
    return f"conf/{file.relative_to(CONF)}" if file.is_relative_to(CONF) else str(file)
