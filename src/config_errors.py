"""Turns what Hydra and OmegaConf say of a bad command line into one line: what was given, what is allowed, what to do."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config import Config
from src.errors import ConfigError

IN_FILE = re.compile(r"In '([^']+)': \w+ raised while composing config:\n(.*)\n\s*full_key: (\S+)")
CUTOFF = 0.7  # how alike a key must be to be suggested


def parse(overrides: list[str]) -> list[Override]:
    """Hydra's reading of the overrides; raises ConfigError for what it cannot read."""
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise explain(error) from error


def quoted(path: Path) -> str:
    """The path as a value that Hydra's grammar takes whole."""
    return "'" + str(path).replace("'", "\\'") + "'"


def explain(error: Exception) -> ConfigError:
    """The error in one line, with the nearest key or the options that exist."""
    text, cause = str(error), error.__cause__
    if isinstance(error, OverrideParseException):
        why = f" ({text.splitlines()[0]})" if "=" in error.override else ""  # else there is no more to be said
        return ConfigError(f"{error.override}: not of the form key=value{why}")
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return ConfigError(
            f"{group}={option}: no such option{did_you_mean(option, error.options)}; there are {', '.join(error.options)}"
        )
    if isinstance(cause, OmegaConfBaseException) and (match := re.match("Could not override '([^']+)'", text)):
        return _explain_unknown_key(match[1], cause)
    if found := IN_FILE.match(text):
        file, said, key = found.groups()
        parents, _, last = key.rpartition(".")
        if said.startswith("Key "):
            said = _unknown_key_line(key, parents, last, _fields(parents)).removeprefix(f"{key}: ")
        return ConfigError(f"{file}.yaml: {key}: {said}")
    if text.startswith("Error merging override") and cause is not None:
        return ConfigError(f"{text.removeprefix('Error merging override ')}: {str(cause).splitlines()[0]}")
    if missing := re.search("missing mandatory value: ([\\w.]+)", text):
        return ConfigError(f"{missing[1]}: not given; {missing[1]}=VALUE is needed, and --help says what it may be")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("object_type")]
    return ConfigError("; ".join(line.replace("full_key: ", "key ") for line in lines))


def _explain_unknown_key(key: str, cause: OmegaConfBaseException) -> ConfigError:
    """`cause` knows the node that lacks the key; its other keys are the allowed ones."""
    if not isinstance(cause.parent_node, DictConfig):
        return ConfigError(f"{key}: no such key")
    siblings = [str(name) for name in cause.parent_node]
    tree: Any = cause.parent_node._get_root()
    if elsewhere := [k for k in known_keys(tree) if k.endswith(f".{key}") and not k.startswith("study.") and key != "_target_"]:
        return ConfigError(f"{key}: no such key, did you mean {' or '.join(sorted(elsewhere))}?")
    parents = str(cause.full_key).rpartition(".")[0] if cause.full_key else ""
    unknown = str(cause.full_key or cause.key).rpartition(".")[2]
    rest = key.removeprefix(f"{parents}." if parents else "").removeprefix(unknown)
    return ConfigError(_unknown_key_line(key, parents, unknown, siblings, rest))


def _fields(parents: str) -> list[str]:
    """Of a node of the schema; none of a node that is not in it, such as Hydra's own."""
    node: Any = Config
    for name in parents.split(".") if parents else ():
        node = next((field.type for field in fields(node) if field.name == name), None) if is_dataclass(node) else None
    return [field.name for field in fields(node)] if is_dataclass(node) else []


def _unknown_key_line(key: str, parents: str, unknown: str, siblings: Iterable[str], rest: str = "") -> str:
    """`key` is parents.unknown + rest; a suggestion replaces `unknown` alone."""
    shown = sorted(name for name in siblings if name not in ("_target_", "hydra"))
    if not shown:
        return f"{key}: no such key"
    suggestion = did_you_mean(unknown, shown, f"{parents}." if parents else "", rest)
    return f"{key}: no such key{suggestion}; {parents or 'the configuration'} has {', '.join(shown)}"


def did_you_mean(word: str, known: Iterable[str], before: str = "", after: str = "") -> str:
    """`, did you mean <before><the nearest known word><after>?`, or nothing."""
    near = nearest(word, known)
    return f", did you mean {before}{near}{after}?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like this one, if any is like it."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=CUTOFF)), None)


def check_added_keys(composed: DictConfig, overrides: list[str], compose: Callable[[list[str]], DictConfig]) -> None:
    """Refuses keys that were added with `+` and that nothing reads.

    An argument may be added to a node with a `_target_`; whether its target takes it is checked once it is imported.
    """
    parsed = [o for o in parse(overrides) if not o.key_or_group.startswith("hydra")]
    added = {o.key_or_group for o in parsed if o.is_add() or o.is_force_add()}
    if any(o.is_force_add() for o in parsed):  # `++` may also set a key that was there
        added -= known_keys(compose([o for o in overrides if not o.startswith("+")]))
    for key in sorted(added):
        parents, _, last = key.rpartition(".")
        node = OmegaConf.select(composed, parents) if parents else composed
        if not isinstance(node, DictConfig):
            raise ConfigError(f"{key}: no such key")
        siblings = [str(name) for name in node if f"{parents}.{name}".lstrip(".") not in added]
        if "_target_" not in node or nearest(last, siblings):
            raise ConfigError(_unknown_key_line(key, parents, last, siblings))


def known_keys(config: DictConfig) -> set[str]:
    """Every key of the configuration, dotted, Hydra's own left out."""
    tree: Any = OmegaConf.to_container(config)
    tree.pop("hydra", None)
    return set(_walk(tree, ""))


def _walk(node: Any, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{key}.")
