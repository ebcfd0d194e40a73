"""From words of the command line to one checked configuration, without torch."""

import copy
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.config import HARMLESS_KEYS, RESULTS_VERSION, Config, check_config
from src.config_errors import check_added_keys, did_you_mean, explain
from src.errors import ConfigError, UserError
from src.help import CONF
from src.redaction import HIDDEN, Redactor
from src.resume import flatten
from src.run_folder import Launch, short_hash, slug
from src.tags import TAGS, find_tag
from src.trust import check_added_folders, check_hydra_node, typed_for_hydra


def prepare(config_name: str, overrides: list[str], console: Redactor | None = None) -> tuple[Launch, Config]:
    """Composes and checks one configuration without importing torch; `console` learns its secrets.

    Raises:
        ConfigError: In one line, for everything that is wrong with it.
    """
    composed, hydra_node = compose_checked(config_name, overrides)
    written: Any = OmegaConf.to_container(composed)
    redactor = console or Redactor([])
    redactor.learn(overrides)
    shown = redactor.tree(written)
    composed.name = run_name(composed.name, hydra_node.runtime.choices)
    config = fill_in(composed)
    assert isinstance(config, Config)
    stored = redactor.tree(OmegaConf.to_container(composed), written)
    refuse_secrets(stored | {"name": f"{shown['name']} {stored['name']}"})
    check_config(config)
    stored["monitor"]["mode"] = composed.monitor.mode = config.monitor.mode = resolve_mode(config)
    resolved: Any = OmegaConf.to_container(composed)
    folder = hydra_node.run.dir if any(word.startswith("hydra.run.dir=") for word in overrides) else None
    launch = Launch(
        command=[Path(sys.executable).name, "-m", f"src.{Path(sys.argv[0]).stem}", *sys.argv[1:]],
        overrides=overrides,
        folder=Path(folder) if folder else None,
        config=resolved,
        stored=stored,
        config_yaml=OmegaConf.to_yaml(stored),
        written_yaml=OmegaConf.to_yaml(shown),
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


def refuse_secrets(stored: dict[str, Any]) -> None:
    """Raises ConfigError if a key of src/config.py was given a secret: by these, runs are named, listed and made again."""
    typed = {field.name: stored[field.name] for field in fields(Config) if field.type is not Any}
    for key, value in flatten(typed).items():
        if HIDDEN in str(value) and key != "training.resume":
            raise ConfigError(f"{key}: was given a secret, but is stored and shown as it is; give another value")


def fill_in(composed: DictConfig) -> Any:
    """Fills in the interpolations of `composed` and gives it as its schema's object; raises ConfigError if it cannot."""
    try:
        OmegaConf.resolve(composed)
        return OmegaConf.to_object(composed)
    except (OmegaConfBaseException, ValueError) as error:
        raise explain(error) from error


def resolve_mode(config: Config) -> str:
    """Whether `max` or `min` of the monitored tag is better: what the list of tags says.

    Raises:
        ConfigError: If there is no such tag, it has no better direction, or `monitor.mode` is the other one.
    """
    name, tag = config.monitor.tag, find_tag(config.monitor.tag)
    if tag is None:
        known = [tag.name for tag in TAGS if tag.mode]
        raise ConfigError(f"monitor.tag={name}: no such score{did_you_mean(name, known)}; there are {', '.join(known)}")
    if tag.mode is None:
        raise ConfigError(f"monitor.tag={name}: neither a high nor a low {name} is better; choose another, such as val/miou")
    if config.monitor.mode not in (None, tag.mode):
        better = "lower" if tag.mode == "min" else "higher"
        raise ConfigError(f"monitor.mode={config.monitor.mode}: {better} is better for monitor.tag={name}; use monitor.mode=null")
    return tag.mode


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
    if kept["model"].get("gate_channels", ...) is None:  # younger than some runs, whose id it must not change
        del kept["model"]["gate_channels"]
    for key in HARMLESS_KEYS:
        *parents, last = key.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    return short_hash([RESULTS_VERSION, kept])
