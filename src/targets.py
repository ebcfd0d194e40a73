"""What a `_target_` may be: checked, as text and once resolved, before anything is built."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import albumentations as A
from beartype import BeartypeConf
from beartype.door import is_bearable
from pydantic import ValidationError
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.config_errors import did_you_mean
from src.datasets.augmentation import Augmentation
from src.datasets.reader import SegmentationDataset
from src.errors import ConfigError

ALLOWED_PREFIXES = ("src.", "torch.nn.", "torch.optim.", "albumentations.", "monai.networks.", "monai.losses.")
KINDS: dict[str, tuple[type, ...]] = {
    "model": (nn.Module,),
    "dataset": (SegmentationDataset,),
    "augmentation": (Augmentation,),
    "loss": (nn.Module,),
    "optimizer": (Optimizer,),
    "scheduler": (LRScheduler,),
}
INNER_KINDS = {"augmentation": (A.BasicTransform, A.BaseCompose)}  # of the targets inside a node, where they differ
RESERVED = ("_args_", "_partial_", "_recursive_", "_convert_", "_mode_")  # Hydra's own, which only build.py may use


def check_targets(group: str, node: dict[str, Any], runtime: dict[str, Any]) -> dict[str, Any]:
    """Raises ConfigError unless every target in the node is a class that this group may build, called rightly.

    Gives those of `runtime` that the outermost class takes: a loss need not know what only another one asks for.

    Args:
        group: The configuration's group.
        node: Its `_target_` and arguments, which may hold further targets.
        runtime: Arguments of the outermost target that come from elsewhere.
    """
    for path, text in texts_in(group, node):
        if "${" in text:  # Hydra would fill it in after this check
            raise ConfigError(f"{path}={text!r}: an interpolation that was not filled in; write its value")
    kinds, wanted = KINDS[group], runtime
    for path, part in targets_in(group, node):  # the outermost comes first
        cls = check_target(path, part, kinds)
        if part is node:
            wanted = {name: value for name, value in runtime.items() if _takes(cls, name)}
        check_arguments(path, cls, {k: v for k, v in part.items() if k != "_target_"}, wanted if part is node else {})
        kinds = INNER_KINDS.get(group, KINDS[group])
    return wanted


def _takes(cls: type, name: str) -> bool:
    parameters = inspect.signature(cls).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def targets_in(path: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a `_target_`, outermost first, and where it stands."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets_in(f"{path}.{key}", value)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from targets_in(f"{path}[{number}]", value)


def texts_in(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """Every key and text in the node, and where it stands."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield path, str(key)
            yield from texts_in(f"{path}.{key}", value)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from texts_in(f"{path}[{number}]", value)


def locate(target: str) -> Any:
    """What `package.module.Class` names."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def check_target(path: str, node: dict[str, Any], kinds: tuple[type, ...]) -> type:
    """The target's class; raises ConfigError unless it is allowed and of one of these kinds."""
    if reserved := [key for key in RESERVED if key in node]:
        raise ConfigError(f"{path}.{reserved[0]}: not allowed in a configuration")
    target = node["_target_"]
    if not isinstance(target, str) or not target.startswith(ALLOWED_PREFIXES):
        raise ConfigError(f"{path}._target_={target}; allowed are classes under {', '.join(ALLOWED_PREFIXES)}")
    try:
        cls = locate(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_={target}: no such class ({innermost(error)})") from error
    if not isinstance(cls, type) or not issubclass(cls, kinds) or not f"{cls.__module__}.".startswith(ALLOWED_PREFIXES):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"{path}._target_={target}; {path} needs a subclass of {names}")
    return cls


def check_arguments(path: str, cls: type, arguments: dict[str, Any], runtime: dict[str, Any]) -> None:
    """Raises ConfigError at an argument that the class does not take, lacks, or takes as another type."""
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    own = [name for name in parameters if name not in runtime]
    hints = _type_hints(cls)
    for name, value in arguments.items():
        if name in runtime or (name not in parameters and not takes_any):
            suggestion = did_you_mean(name, own, before=f"{path}.")
            raise ConfigError(f"{path}.{name}: no such argument{suggestion}; {cls.__name__} takes {', '.join(own)}")
        if name in hints and not _contains_target(value) and not _fits(value, hints[name]):
            raise ConfigError(f"{path}.{name}={value!r}; allowed is {_describe(hints[name])}")
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        if required and name not in arguments and name not in runtime:
            raise ConfigError(f"{path}.{name}: {cls.__name__} needs it; set {path}.{name}=VALUE")


def _type_hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls.__init__)
    except (NameError, TypeError):  # some libraries name types that exist for type checkers alone
        return {}


def _contains_target(value: Any) -> bool:
    return any(True for _ in targets_in("", value))


def _fits(value: Any, hint: Any) -> bool:
    conf = BeartypeConf(is_pep484_tower=True)  # a whole number is a float too
    if isinstance(value, bool):  # which is an int too, for Python
        wants_number = is_bearable(2, hint) and bool not in (hint, *get_args(hint)) and not is_bearable(object(), hint)
        return is_bearable(value, hint) and not wants_number
    if not isinstance(value, list):
        return is_bearable(value, hint, conf=conf)
    if is_bearable([], hint):  # any length: item by item, since beartype looks at one of them alone
        return all(is_bearable([item], hint, conf=conf) for item in value)
    return is_bearable(tuple(value), hint, conf=conf)


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(str(choice) for choice in get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("collections.abc.", "")


def innermost(error: BaseException) -> str:
    """What started it all, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ValidationError):  # albumentations checks its arguments with pydantic
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, not {e['input']!r}" for e in error.errors())
    return (str(error).strip() or type(error).__name__).splitlines()[0]
