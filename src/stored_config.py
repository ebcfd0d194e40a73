"""What a run was trained with, read back from its folder as somebody else's YAML."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config import PRECISIONS, RANGES, Config, LoaderConfig
from src.config_errors import explain
from src.errors import ConfigError
from src.ranges import check_numbers
from src.redaction import HIDDEN
from src.resume import flatten
from src.stored_files import within
from src.trust import LOADER, check_file

NEEDED = ("seed", "precision", "threads", "deterministic", "loader", "model", "dataset")  # to make the network and its data again


@dataclass
class StoredConfig(Config):
    """A run's own configuration, and whether data that are not there may be made where it says."""

    may_render: bool = False


def read_stored_config(folder: Path, root: str | None = None) -> StoredConfig:
    """The parts of a run's own `config.yaml` that make its network and data; the others are left unset.

    It can name nothing that the command line could not: what it builds is checked by build.py as always, and it may not
    refer to the environment. Data are made only under data/ or a root that was given.

    Args:
        folder: Of the run.
        root: Takes the place of its `dataset.root`; None keeps that.

    Raises:
        ConfigError: If there is none, it is not one that this project wrote, or a secret was left out of it that is needed.
    """
    file = within(folder, "config.yaml")
    if not file.is_file():
        raise ConfigError(f"{folder}: no config.yaml there, so it is no run's folder; give outputs/NAME/DATE_TIME_ID")
    tree = {key: value for key, value in _load(file).items() if key in NEEDED}
    if any(not isinstance(tree.get(group), dict) for group in ("model", "dataset")):
        raise ConfigError(f"{file}: model and dataset must be groups with a _target_")
    if root is not None:
        tree["dataset"]["root"] = root
    for key, value in flatten({group: tree[group] for group in ("model", "dataset")}).items():
        if HIDDEN in str(value) and key != "model.weights":
            advice = "give root=FOLDER" if key == "dataset.root" else "write it there, in a copy of the run's folder"
            raise ConfigError(f"{file}: {key} holds a secret that was not stored ({HIDDEN}); {advice}")
    try:
        check_numbers(tree, RANGES)
        merged = OmegaConf.merge(OmegaConf.structured(Config), tree)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{file}: {explain(error)}") from error
    if lacking := [key for key in sorted(OmegaConf.missing_keys(merged)) if key.partition(".")[0] in NEEDED]:
        raise ConfigError(f"{file}: lacks {', '.join(lacking)}; was it written by src.train?")
    parts: Any = OmegaConf.to_container(merged)
    config = StoredConfig(**{key: parts[key] for key in NEEDED if key != "loader"}, loader=LoaderConfig(**parts["loader"]))
    home = Path(str(tree["dataset"].get("root"))).resolve()
    config.may_render = root is not None or home.is_relative_to(Path("data").resolve())
    if config.precision not in PRECISIONS:
        raise ConfigError(f"{file}: precision={config.precision}; allowed are {', '.join(PRECISIONS)}")
    return config


def _load(file: Path) -> dict[str, Any]:
    check_file(file)
    text = file.read_text(encoding="utf-8")
    if "${" in text:
        raise ConfigError(f"{file}: holds an interpolation (${{...}}), which no run writes; it is not read")
    try:
        tree = yaml.load(text, LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: holds {type(tree).__name__}, expected keys and values; was it written by src.train?")
    return tree
