"""The front door: composes and checks everything, each point of a sweep too, before anything is made on disk."""

import contextlib
import copy
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.config import HARMLESS_KEYS, Config, check_config
from src.config_errors import check_added_keys, explain
from src.errors import ConfigError, UserError
from src.help import CONF
from src.redaction import Redactor
from src.run_folder import OUTPUTS, Interrupted, Launch, claim_folder, short_hash, slug
from src.studies.isolation import end_with_parent, is_child, quoted, run_job
from src.studies.points import expand_points, is_sweep
from src.trust import as_override, check_added_folders, check_hydra_node, typed_for_hydra

Task = Callable[[Config, Launch], float]


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
        elif arguments.hydra_help or arguments.info:
            prepare(config_name, arguments.overrides, redactor)
            hand_to_hydra(config_name)
        elif arguments.cfg:
            print_config(arguments, config_name, redactor)
        elif arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides:
            if int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ConfigError("-m: a sweep starts its own processes; run it without torchrun")
            sweep(arguments.overrides, check, config_name, redactor)
        else:
            launch, config = prepare(config_name, arguments.overrides, redactor)
            gc.enable()
            if config.study and not is_child():
                raise ConfigError(f"study={launch.config['study'].get('question', '')!r}: a study is a sweep; add -m")
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
        written_yaml = OmegaConf.to_yaml(composed)
        redactor.learn(arguments.overrides, OmegaConf.to_container(composed))
        config = fill_in(composed)
        check(config)
        if arguments.cfg:
            print(redactor.text(OmegaConf.to_yaml(composed) if arguments.resolve else written_yaml), end="")
            return
        sys.exit(task(config))


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[Redactor]:
    """Ends the process with what a person did wrong, in one line and no traceback, or with what we did wrong, with one.

    Secrets that the redactor has learnt by then are left out of both.
    """
    redactor = Redactor(sys.argv[1:])
    rank = os.environ.get("RANK", "0")  # of the processes that torchrun starts
    try:
        yield redactor
    except UserError as error:
        sys.exit(f"{'' if rank == '0' else f'rank {rank}: '}error: {redactor.text(str(error))}")
    except Interrupted as error:
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # a mistake of ours: the whole traceback, which may quote a secret
        sys.exit(redactor.text(traceback.format_exc()).rstrip())
    finally:
        gc.freeze()  # the interpreter's last collection would go through all that Hydra made


def parse_arguments() -> Any:
    """Hydra's reading of the command line; a flag that it does not know is told in one line."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        hint = "flags such as -m come before all keys, and keys have no dashes: training.epochs=10 (see --help)"
        raise ConfigError(f"{message}; {hint}")

    parser.error = refuse  # type: ignore[method-assign]
    arguments = parser.parse_args()
    if arguments.config_path or arguments.config_name or arguments.experimental_rerun:
        raise ConfigError(
            "--config-path, --config-name and --experimental-rerun are not used here; --config-dir adds a folder to conf/"
        )
    if arguments.config_dir:
        arguments.overrides.append(override := as_override(arguments.config_dir))
        sys.argv.append(override)  # for the jobs of a sweep
    return arguments


def print_config(arguments: Any, config_name: str, redactor: Redactor) -> None:
    """`--cfg job`: the checked configuration, as text."""
    launch, _ = prepare(config_name, arguments.overrides, redactor)
    if arguments.cfg != "job" or arguments.package:
        hand_to_hydra(config_name)
    else:
        print(launch.redactor.text(launch.config_yaml if arguments.resolve else launch.written_yaml), end="")


def sweep(overrides: list[str], check: Callable[[Config], None], config_name: str, redactor: Redactor) -> None:
    """Checks every point, claims the sweep's folder and lets Hydra's sweeper and launcher run the jobs."""
    gc.enable()
    other_sweeper = any(override.startswith("hydra/sweeper=") for override in overrides)  # finds its points as it goes
    first = overrides if other_sweeper else expand_points(overrides, None)[0]
    base, _ = prepare(config_name, [override for override in first if not is_sweep(override)], redactor)
    points = [] if other_sweeper else expand_points(overrides, base.config["study"])
    ids = []
    for point in points:
        launch, config = prepare(config_name, point, redactor)
        try:
            check(config)
        except UserError as error:
            raise ConfigError(f"{' '.join(point)}: {error}") from error
        ids.append(launch.short_id)
    if not any(override.startswith("hydra.sweep.dir=") for override in overrides):
        folder = claim_folder(OUTPUTS / "multirun" / base.config["name"], short_hash(ids))
        sys.argv.append(f"hydra.sweep.dir={quoted(folder)}")
        print(f"sweep of {len(ids) or 'as many as it needs'} jobs: {folder}")
        print(f"if it is cut, the same command with training.resume=auto hydra.sweep.dir={quoted(folder)} goes on", flush=True)
    hand_to_hydra(config_name)


def hand_to_hydra(config_name: str) -> None:
    """Lets Hydra do the rest of the command line: its own flags, or the jobs of a sweep."""
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run_job)()


def prepare(config_name: str, overrides: list[str], console: Redactor | None = None) -> tuple[Launch, Config]:
    """Composes and checks one configuration without importing torch; `console` learns its secrets.

    Raises:
        ConfigError: In one line, for everything that is wrong with it.
    """
    composed, hydra_node = compose_checked(config_name, overrides)
    written: Any = OmegaConf.to_container(composed)
    written_yaml = OmegaConf.to_yaml(composed)
    redactor = console or Redactor([])
    redactor.learn(overrides, written)
    composed.name = run_name(composed.name, hydra_node.runtime.choices)
    config = fill_in(composed)
    resolved: Any = OmegaConf.to_container(composed)
    assert isinstance(config, Config)
    redactor.learn([], resolved)
    check_config(config)
    folder = hydra_node.run.dir if any(word.startswith("hydra.run.dir=") for word in overrides) else None
    launch = Launch(
        command=[Path(sys.executable).name, "-m", f"src.{Path(sys.argv[0]).stem}", *sys.argv[1:]],
        overrides=overrides,
        folder=Path(folder) if folder else None,
        config=resolved,
        config_yaml=OmegaConf.to_yaml(OmegaConf.create(redactor.tree(resolved))),
        written_yaml=written_yaml,
        short_id=result_id(resolved),
        redactor=redactor,
    )
    return launch, config


def compose_checked(config_name: str, overrides: list[str]) -> tuple[DictConfig, Any]:
    """The composed configuration, as written, and Hydra's own node; raises ConfigError for keys that there are not."""
    try:
        is_widened = check_added_folders(overrides)
        composed = compose_config(config_name, overrides)
        check_added_keys(composed, overrides, lambda words: compose_config(config_name, words))
        if is_widened:
            typed = compose_config(config_name, typed_for_hydra(overrides))
            check_hydra_node(OmegaConf.to_container(composed.hydra), OmegaConf.to_container(typed.hydra))
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise explain(error) from error
    hydra_node = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    return composed, hydra_node


def fill_in(composed: DictConfig) -> Any:
    """Fills in the interpolations of `composed` and gives it as its schema's object; raises ConfigError if it cannot."""
    try:
        OmegaConf.resolve(composed)
        return OmegaConf.to_object(composed)
    except (OmegaConfBaseException, ValueError) as error:
        raise explain(error) from error


def compose_config(config_name: str, overrides: list[str]) -> DictConfig:
    """The composed configuration with Hydra's own node."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(config_name, overrides, return_hydra_config=True)


def run_name(name: str | None, choices: DictConfig) -> str:
    """The folder under outputs/: the name as a slug, else the study's or experiment's, else <model>_<dataset>."""
    return slug(name or choices["study"] or choices["experiment"] or f"{choices['model']}_{choices['dataset']}")


def result_id(config: dict[str, Any]) -> str:
    """Hash of every key that changes the result."""
    kept = copy.deepcopy(config)
    for key in HARMLESS_KEYS:
        *parents, last = key.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    return short_hash(kept)
