"""From words of the command line to one checked configuration, without torch."""

import copy
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.config import HARMLESS_KEYS, RESULTS_VERSION, Config, check_config
from src.config_errors import check_added_keys, explain
from src.errors import UserError
from src.help import CONF
from src.redaction import Redactor
from src.run_folder import Launch, short_hash, slug
from src.trust import check_added_folders, check_hydra_node, typed_for_hydra


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
    return short_hash([RESULTS_VERSION, kept])
