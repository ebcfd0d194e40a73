"""`python -m src.runs explain KEY`: its value, type, allowed values and meaning, and which file or word set it."""

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from src.composing import compose_checked, fill_in, resolve_mode
from src.config import RANGES, Config, check_config
from src.errors import ConfigError, UserError
from src.help import CONF
from src.ranges import range_in_words
from src.redaction import Redactor
from src.run_folder import read_run
from src.runs.origins import Origin, origins_of
from src.studies.choosing import choose_runs
from src.studies.points import Point, bare, expand_points, is_sweep
from src.studies.reading import Run
from src.studies.sweep import Options, take_options

MISSING = object()
OUTSIDE = {int: -1, float: -1.0, str: "?"}  # a value of each type that a check of allowed ones refuses, and so names them


@dataclass(frozen=True)
class Kind:
    """What a key takes: type, allowed values, and what it means."""

    type: str
    allowed: str
    meaning: str


def main(words: Sequence[str]) -> None:
    """Prints what is known of one key, as the other words compose it or as a run's folder has it."""
    words = [word for word in words if word not in ("-m", "--multirun")]  # as they stand in the command of a sweep
    keys = [word for word in words if "=" not in word and not word.startswith("~")]
    named = [word.partition("=")[2] for word in words if word.startswith("run=")]
    others = [word for word in words if word not in keys and not word.startswith("run=")]
    if len(keys) != 1 or len(named) > 1 or (named and others):
        raise ConfigError("explain takes one key, and overrides such as experiment=original, or run=FOLDER: explain optimizer.lr")
    print(explain(keys[0], others, choose_runs(named[0])[0] if named else None))


def explain(key: str, words: list[str], run: Path | None = None) -> str:
    """The lines that `main` prints.

    Raises:
        ConfigError: If there is no such key, or the words do not compose.
    """
    stored = read_run(run) if run else {}
    if run:
        words = Run(run, stored).words
    options, words = take_options(words)
    asked, words = words, expand_points(words, None)[0]  # of a sweep, its first point
    composed, hydra_node = compose_checked("config", words)
    choices: dict[str, Any] = dict(hydra_node.runtime.choices)
    redactor, written = Redactor(words), OmegaConf.to_container(composed)
    config = fill_in(composed)
    check_config(config)
    composed.monitor.mode = config.monitor.mode = resolve_mode(config)
    tree: Any = OmegaConf.to_container(composed)
    shown, points = redactor.tree(tree, written), expand_points(asked, tree["study"])
    option = key.removeprefix("study.")
    if key != option and option in vars(options):
        kind = _field(Options, option, lambda value: take_options([f"{key}={value}"]))
        return _lines(key, getattr(options, option), kind, [])
    value = choices.get(key, _select(tree, key))
    if value is MISSING:
        parent = key.rpartition(".")[0]
        if isinstance(_select(tree, parent), dict) or not parent:
            compose_checked("config", [*words, f"{key}=null"])  # says which keys there are
        raise ConfigError(f"{key}: no such key")
    kind = kind_of(key, value, config, tree, choices)
    now = choices.get(key, _select(shown, key))
    hidden = [[redactor.word(word) for word in point] for point in points]
    told = _lines(key, now, kind, origins_of(key, words, key in choices, redactor)) + _swept(key, asked, hidden)
    if run:
        then = _select(stored.get("config") or {}, key)
        if key not in choices and then != now:
            told += f"\n  in {run}  {'no such key' if then is MISSING else _text(then)}: conf/ gives another value today"
    return told


def _swept(key: str, asked: list[str], points: list[Point]) -> str:
    """A line with the values that the points of a sweep give the key, where the words ask for one that does."""
    own = [word for word in asked if bare(word.partition("=")[0]) == key]
    if own and not is_sweep(own[-1]):
        return ""
    set_by_points = [word.partition("=") for point in points for word in point]
    values = dict.fromkeys(value for name, _, value in set_by_points if bare(name) == key)
    return f"\n  swept    by {'the command line' if own else 'the study'}: {', '.join(values)}" if values else ""


def kind_of(key: str, value: Any, config: Config, tree: dict[str, Any], choices: dict[str, Any]) -> Kind:
    """Of a group, of an argument of what a group builds, or of a key of src/config.py."""
    group, _, rest = key.partition(".")
    if key in choices:
        names = sorted(file.stem for file in (CONF / key).glob("*.yaml"))
        return Kind("group", ", ".join(names), _first_lines(CONF / key / f"{choices[key]}.yaml"))
    if rest and isinstance(tree[group], dict) and "_target_" in tree[group]:
        kind = _argument(group, rest.partition(".")[0], value, tree[group], CONF / group / f"{choices.get(group)}.yaml")
        bounds = range_in_words(RANGES[key]) if key in RANGES else ""
        return replace(kind, allowed="; ".join(filter(None, (kind.allowed, bounds))))
    cls: Any = Config
    *parents, name = key.split(".")
    for parent in parents:
        cls = next((field.type for field in fields(cls) if field.name == parent), None) if is_dataclass(cls) else None
    if not is_dataclass(cls):
        return Kind(type(value).__name__, "", "")

    def check(trial: Any) -> None:
        changed: Any = copy.deepcopy(config)
        node = changed
        for parent in parents:
            node = getattr(node, parent)
        setattr(node, name, trial)
        check_config(changed)

    return _field(cls, name, check)


def _field(cls: Any, name: str, check: Callable[[Any], object]) -> Kind:
    """Of a dataclass: its type, what its check says of a value outside, and the comment beside it."""
    hint: Any = next(field.type for field in fields(cls) if field.name == name)
    if is_dataclass(hint):
        return Kind("keys", ", ".join(field.name for field in fields(hint)), inspect.getdoc(hint) or "")
    told = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
    plain = next((kind for kind in OUTSIDE if kind.__name__ in told.split(" | ")), None)
    allowed = "true, false" if hint is bool else _said(lambda: check(OUTSIDE[plain])) if plain else ""
    found = re.search(rf"^    {name}: [^#\n]*#\s*(.*)$", inspect.getsource(cls), re.MULTILINE)
    return Kind(told, allowed, found[1] if found else "")


def _argument(group: str, name: str, value: Any, node: dict[str, Any], file: Path) -> Kind:
    """Of the class that the group builds: what its signature allows, and what its docstring and the YAML file say."""
    from src.targets import KINDS, check_arguments, check_target

    cls = check_target(group, node, KINDS[group])
    allowed = _said(lambda: check_arguments(group, cls, {name: MISSING}, {}))
    doc = "\n".join(inspect.getdoc(part) or "" for part in (cls, cls.__init__))
    entry = re.search(rf"^(\s+){name}\s*(?:\([^\n]*?\))?:\s*(.*(?:\n\1\s+\S.*)*)", doc, re.MULTILINE)
    beside = re.search(rf"^{name}:[^#\n]*#\s*(.*)$", file.read_text(encoding="utf-8") if file.is_file() else "", re.MULTILINE)
    said = [" ".join(text.split()) for text in (beside[1] if beside else "", entry[2] if entry else "")]
    return Kind(f"argument of {cls.__module__}.{cls.__qualname__}", allowed, "; ".join(text for text in said if text))


def _said(check: Callable[[], object]) -> str:
    """What a check allows, in its own words; nothing where it has no say."""
    try:
        check()
    except UserError as error:
        found = re.search(r"; allowed (?:is|are) (.*)", str(error))
        return found[1] if found else ""
    return ""


def _first_lines(file: Path) -> str:
    """The comment that a YAML file begins with, without its directives and commands."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    ended = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    told = [line.lstrip("# ") for line in lines[:ended]]
    return " ".join(line for line in told if line and not line.startswith(("@package", "python -m")))


def _select(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return MISSING
        tree = tree[part]
    return tree


def _text(value: Any) -> str:
    """As one would type it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()


def _lines(key: str, value: Any, kind: Kind, origins: Sequence[Origin]) -> str:
    rows = {"type": kind.type, "allowed": kind.allowed or "what its type says", "meaning": kind.meaning}
    lines = [f"{key} = {_text(value)}", *(f"  {name:8} {text}" for name, text in rows.items() if text)]
    for number, origin in enumerate(reversed(origins)):
        lines.append(f"  {'before' if number else 'set by':8} {origin.where}: {_text(origin.value)}")
    return "\n".join(lines)
