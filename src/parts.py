"""From a group's node to its object: the only place where Hydra meets torch."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from torch import nn
from torch.nn.parameter import is_lazy

from src.config import Config
from src.device import is_out_of_memory
from src.errors import ConfigError, UserError
from src.targets import check_targets, innermost

NOT_ARGUMENTS = {"model": ("weights",), "scheduler": ("warmup_epochs",)}  # keys that build.py and train.py read
SOURCES = Path(__file__).parent
TRIES = ("parts.py", "rehearsal.py", "loss_rehearsal.py", "schedules.py")  # files that call what YAML names
HINTS = {  # by group: what an error says, and what to do about it
    "optimizer": {"closure": "training gives it no closure; use another optimizer, such as torch.optim.AdamW"},
}


def build_part(group: str, node: Any, **runtime: Any) -> Any:
    """Builds a group's object from its `_target_` and arguments; `runtime` are those that no YAML can hold.

    Raises:
        ConfigError: If the target is not of the kind that the group builds, or an argument is not one it takes.
    """
    node = checked_node(group, node)
    runtime = check_targets(group, node, runtime)
    with in_words(group):
        return instantiate({**node, "_partial_": True}, _convert_="all")(**runtime)


def build_model(config: Config, num_classes: int) -> nn.Module:
    """The network with freshly drawn weights; raises ConfigError too if only a first batch would give some their shape."""
    model = build_part("model", config.model, num_classes=num_classes)
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ConfigError(
            f"model={config.model['_target_']}: has lazy modules (such as LazyConv2d), whose weights have no shape before the"
            " first batch; use those that are given their input channels (Conv2d)"
        )
    return model


def checked_node(group: str, node: Any) -> dict[str, Any]:
    """A group's `_target_` and its arguments; raises ConfigError if it has no target."""
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"{group}: needs a _target_, as in conf/{group}/*.yaml")
    return {key: value for key, value in node.items() if key not in NOT_ARGUMENTS.get(group, ())}


@contextlib.contextmanager
def in_words(group: str) -> Iterator[None]:
    """Raises a ConfigError that names the group for what a constructor refuses."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"{group}: {innermost(error)}") from error


class NoMemoryError(Exception):
    """The rehearsal does not fit into memory."""


@contextlib.contextmanager
def blaming(group: str, node: dict[str, Any], hint: str = "") -> Iterator[None]:
    """Turns whatever fails within into a ConfigError that names group and target."""
    try:
        yield
    except (UserError, NoMemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise NoMemoryError from error
        hints = [advice for words, advice in HINTS.get(group, {}).items() if words in str(error)]
        advice = "".join(f"; {text}" for text in hints or [hint] if text)
        raise ConfigError(f"{group}={node['_target_']}: {_reason(error)}{advice}") from error


def _reason(error: Exception) -> str:
    """The error in one line, and where in our own code it was raised, since no traceback is shown."""
    files = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in files if file.is_relative_to(SOURCES) and file.name not in TRIES]
    where = f" ({own[-1][0].relative_to(SOURCES.parent)}, line {own[-1][1]})" if own else ""
    kind = "" if isinstance(error, ValueError | TypeError | RuntimeError) else f"{type(error).__name__}: "
    return f"{kind}{innermost(error).rstrip('.')}{where}"
