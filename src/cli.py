"""The front door: composes and checks everything before anything is made on disk, and says in one line what is wrong."""

import contextlib
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from src.composing import compose_checked, fill_in, prepare
from src.config import Config
from src.errors import ConfigError, UserError
from src.escaping import clean, cleaned_output
from src.help import CONF
from src.redaction import Redactor
from src.run_folder import Interrupted, Launch
from src.studies.isolation import run_job
from src.studies.parents import end_with_parent, is_child
from src.studies.sweep import take_options
from src.sweeping import sweep
from src.trust import as_override

Task = Callable[[Config, Launch], float]
SWEEPS = ("hydra/sweeper=", "hydra.sweeper.", "hydra/launcher=", "hydra.launcher.")  # what begins these is of no single run


def main(task: Task, check: Callable[[Config], None], config_name: str = "config") -> None:
    """Runs what the command line asks for and ends the process with its exit code.

    Args:
        task: Trains one composed and checked configuration.
        check: Checks what only torch and the data can tell; raises UserError. Called for each point of a sweep.
        config_name: Stem of the primary YAML file in conf/.
    """
    end_with_parent()
    with errors_in_one_line() as redactor:
        arguments = parse_arguments()
        if arguments.shell_completion:
            hand_to_hydra(config_name)
        elif arguments.hydra_help or arguments.info or arguments.cfg:
            launch, _ = prepare(config_name, arguments.overrides, redactor)
            if arguments.cfg == "job" and not arguments.package:
                print(launch.config_yaml if arguments.resolve else launch.written_yaml, end="")
            else:
                hand_to_hydra(config_name)
        elif arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides:
            if int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ConfigError("-m: a sweep starts its own processes; run it without torchrun")
            sweep(arguments.overrides, check, redactor, lambda: hand_to_hydra(config_name))
        else:
            _, of_runs = take_options(arguments.overrides)
            if of_sweeps := [word for word in arguments.overrides if word not in of_runs or word.lstrip("+").startswith(SWEEPS)]:
                raise ConfigError(f"{of_sweeps[0]}: says how a sweep is run; add -m")
            launch, config = prepare(config_name, arguments.overrides, redactor)
            gc.enable()
            if config.study and not is_child():
                named = next((word for word in arguments.overrides if word.startswith("study=")), "study")
                raise ConfigError(f"{named}: a study is a sweep; add -m")
            task(config, launch)


def answer(task: Callable[[Any], int], check: Callable[[Any], None], config_name: str) -> None:
    """Runs an entry point that trains nothing, and ends the process with the exit code that `task` returns.

    Args:
        task: Does the work for one composed and checked configuration.
        check: Raises ConfigError for values that are not allowed; needs no torch.
        config_name: Stem of the primary YAML file in conf/.
    """
    with errors_in_one_line() as redactor:
        arguments = parse_arguments()
        if arguments.multirun:
            raise ConfigError("-m: only training is swept; give one value for each key")
        if arguments.hydra_help or arguments.info or arguments.shell_completion or arguments.cfg not in (None, "job"):
            raise ConfigError("no such flag here; allowed are --help, --cfg job and --resolve")
        composed, _ = compose_checked(config_name, arguments.overrides)
        written = OmegaConf.to_container(composed)
        shown = redactor.tree(written)
        config = fill_in(composed)
        stored = redactor.tree(OmegaConf.to_container(composed), written)
        check(config)
        if arguments.cfg:
            print(OmegaConf.to_yaml(stored if arguments.resolve else shown), end="")
            return
        sys.exit(task(config))


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[Redactor]:
    """Ends the process with what a person did wrong, in one line and no traceback, or with what we did wrong, with one.

    Secrets that the redactor has learnt by then are left out of both, and of all that is printed; so is what would steer the
    terminal.
    """
    redactor = Redactor(sys.argv[1:])
    rank = os.environ.get("RANK", "0")  # of the processes that torchrun starts

    def safe(text: str) -> str:
        return clean(redactor.text(text))

    try:
        with cleaned_output(safe):
            yield redactor
    except UserError as error:
        sys.exit(f"{'' if rank == '0' else f'rank {rank}: '}error: {safe(str(error))}")
    except Interrupted as error:
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # a mistake of ours: the whole traceback, which may quote a secret
        sys.exit(safe(traceback.format_exc()).rstrip())
    finally:
        gc.freeze()  # the interpreter's last collection would go through all that Hydra made


def parse_arguments() -> Any:
    """Hydra's reading of the command line; a flag that it does not know is told in one line."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        hint = "flags such as -m come before all keys, and keys have no dashes: training.epochs=10 (see --help)"
        raise ConfigError(f"{message}; {hint}")

    parser.error = refuse  # type: ignore[method-assign]
    sys.argv[1:] = [word.removeprefix("++") if word.startswith("++hydra.") else word for word in sys.argv[1:]]  # means the same
    arguments = parser.parse_args()
    check_folder_keys(arguments)
    if arguments.config_path or arguments.config_name or arguments.experimental_rerun:
        raise ConfigError(
            "--config-path, --config-name and --experimental-rerun are not used here; --config-dir adds a folder to conf/"
        )
    if arguments.config_dir:
        arguments.overrides.append(override := as_override(arguments.config_dir))
        sys.argv.append(override)  # for the jobs of a sweep
    return arguments


def check_folder_keys(arguments: Any) -> None:
    """Raises ConfigError for a key of Hydra's that would not place the folder that it names."""
    is_sweep = arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides
    unused = {
        "hydra.sweep.subdir": "a sweep names its jobs' folders itself, by number and changed keys; leave it out",
        "hydra.run.dir" if is_sweep else "hydra.sweep.dir": "-m goes with hydra.sweep.dir, a single run with hydra.run.dir",
    }
    for word in arguments.overrides:
        if (key := word.partition("=")[0].lstrip("+~")) in unused:
            raise ConfigError(f"{word}: {unused[key]}")


def hand_to_hydra(config_name: str) -> None:
    """Lets Hydra do the rest of the command line: its own flags, or the jobs of a sweep."""
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run_job)()
