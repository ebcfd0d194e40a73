"""The command line of a sweep: its parts, the words of one that goes on, and what Hydra is told of it."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.config import is_harmless
from src.config_errors import quoted
from src.errors import ConfigError
from src.run_folder import STUDY
from src.studies.ledger import read_study
from src.studies.sweep import Options, take_options, words_of
from src.trust import runs_code


@dataclass(frozen=True)
class Command:
    """What was typed: Hydra's flags, the words that make the points, the sweep's own keys, and its folder where one is given."""

    flags: list[str]
    words: list[str]
    options: Options
    folder: Path | None


def read_command(overrides: list[str]) -> Command:
    """The parts of the command line.

    Raises:
        ConfigError: If a folder has an interpolation, which Hydra would fill in anew, or two are given.
    """
    flags = [word for word in sys.argv[1:] if word not in overrides]
    options, words = take_options(overrides)
    given = [word.partition("=")[2].strip("'\"") for word in words if word.startswith("hydra.sweep.dir=")]
    if given and "${" in given[-1]:
        raise ConfigError(f"hydra.sweep.dir={given[-1]}: give a path without interpolations")
    if given and options.resume and Path(given[-1]).resolve() != Path(options.resume).resolve():
        raise ConfigError(
            f"study.resume={options.resume} and hydra.sweep.dir={given[-1]}: a sweep goes on in its own folder; give one of them"
        )
    if options.resume:
        words = with_stored(words, Path(options.resume))
    path = options.resume or (given[-1] if given else None)
    words = [word for word in words if not word.startswith("hydra.sweep.dir=")]
    return Command(flags, words, options, Path(path) if path else None)


def with_stored(words: list[str], folder: Path) -> list[str]:
    """The words of a sweep that goes on: its own, where only Hydra's keys are given, which take the place of those.

    Raises:
        ConfigError: If other keys are given, but not the whole command again, or its own words may run code.
    """
    keys = {_key(word) for word in words}
    if typed := [word for word in words if "hydra" not in _key(word)]:
        lacking = _decisive_keys(read_study(folder).words) - keys if (folder / STUDY).exists() else set()
        if lacking:
            raise ConfigError(
                f"study.resume={folder}: {typed[0]} is given, but not {', '.join(sorted(lacking))}, which its own command has;"
                " a sweep that goes on takes no keys but Hydra's, or its whole command again"
            )
        return words
    stored = [word for word in words_of(folder) if not word.startswith("hydra.sweep.dir=")]  # it may have been moved
    if any(word.startswith("hydra/launcher=") and word not in stored for word in words):
        stored = [word for word in stored if not _key(word).startswith("hydra.launcher.")]  # which are another one's
    stored = [word for word in stored if _key(word) not in keys]
    if untrusted := [word for word in stored if runs_code(word)]:
        raise ConfigError(
            f"study.resume={folder}: {shlex.join(untrusted)}: not taken from a file, as it might run code; type it again"
        )
    return stored + words


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _decisive_keys(words: Sequence[str]) -> set[str]:
    """Those that alter results, and the study."""
    keys = {_key(word) for word in words}
    return {key for key in keys if not key.startswith("hydra") and (key == "study" or not is_harmless(key))}


def tell_hydra(command: Command, folder: Path) -> None:
    """Leaves the command line as Hydra is to read it."""
    sys.argv[1:] = [*command.flags, *command.words, f"hydra.sweep.dir={quoted(folder)}"]


def is_search(words: list[str]) -> bool:
    """Whether Optuna is to find the points as it goes; raises ConfigError if a sweeper is asked for that is not ours."""
    sweeper = next((word for word in reversed(words) if word.startswith("hydra/sweeper=")), "hydra/sweeper=study")
    if sweeper not in ("hydra/sweeper=study", "hydra/sweeper=optuna"):
        raise ConfigError(f"{sweeper}: allowed are study and optuna")
    return sweeper == "hydra/sweeper=optuna"
