"""The keys that this project owns: their types, meaning and allowed values. The values stand in conf/."""

import re
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from src.errors import ConfigError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass
class MonitorConfig:
    """Which score decides what `best` is."""

    tag: str = MISSING  # any tag of metrics.csv
    mode: str = MISSING  # max, min


@dataclass
class TrainingConfig:
    """How long to train, and what is written meanwhile."""

    epochs: int = MISSING
    patience: int | None = MISSING  # stop after so many epochs without a better monitor.tag; null: never
    resume: str = MISSING  # never, auto (the newest unfinished run of the same id), or a run's folder
    checkpoint_every: int | None = MISSING  # epochs between weights that are kept beside last and best; null: none
    checkpoint_keep: int = MISSING  # how many of these are kept, the newest
    checkpoint_seconds: float | None = MISSING  # seconds between saves within an epoch; null: after epochs alone
    on_nonfinite: str = MISSING  # stop, or skip (a step whose loss or gradient is not a finite number changes nothing)
    max_skipped: int = MISSING  # such steps in a row; one more ends training
    sync_batchnorm: bool = MISSING  # statistics over all ranks of torchrun, on CUDA; false: each rank's own
    log_every: int = MISSING  # steps between readings of the loss from the device
    panel_every: int = MISSING  # epochs between pictures of predictions and gates
    panel_images: int = MISSING  # validation images in them
    baselines: bool = MISSING  # print what trivial predictors score beside the result


@dataclass
class LoaderConfig:
    """How batches are made."""

    batch_size: int = MISSING
    num_workers: int = MISSING  # processes that augment; 0: the training process itself
    drop_last: bool = MISSING  # leave out an epoch's last, smaller batch (training only)


@dataclass
class Config:
    """A whole run. The groups at the end hold a `_target_` and its arguments; its signature is their schema."""

    name: str | None = MISSING  # folder under outputs/; null: the experiment's name, or <model>_<dataset>
    seed: int = MISSING
    device: str = MISSING  # auto, cpu, cuda, cuda:1, mps
    precision: str = MISSING  # auto (bf16 where the hardware multiplies it), fp32, bf16, fp16
    threads: int | None = MISSING  # CPU threads of torch; null: torch decides
    deterministic: bool = MISSING  # same numbers from run to run on CUDA, at some cost in speed
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    study: Any = None
    model: Any = MISSING
    dataset: Any = MISSING
    augmentation: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING


@dataclass
class DoctorConfig:
    """What the doctor looks at."""

    strict: bool = MISSING  # warnings too make the exit code 1
    format: str = MISSING  # text, json
    dataset: Any = MISSING


@dataclass
class EvaluateConfig:
    """What is scored, and how."""

    run: Any = MISSING  # a run's folder, best, SWEEP:top3, or a list of these
    split: str = MISSING  # val, test
    size: str = MISSING  # training (as the network sees images), full (logits brought to each mask's own size)
    checkpoint: str = MISSING  # best, last
    root: str | None = MISSING  # where the data are now; null: where they were
    batch_size: int | None = MISSING  # null: the run's own
    num_workers: int = MISSING
    device: str = MISSING
    precision: str | None = MISSING  # auto, fp32, bf16, fp16; null: what the run was computed in
    threads: int | None = MISSING  # null: the run's own
    format: str = MISSING  # text, json


ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)
ConfigStore.instance().store(name="schema", node=Config)
ConfigStore.instance().store(name="doctor_schema", node=DoctorConfig)

RESULTS_VERSION = 2  # part of a run's id; raised when the same configuration comes to give other numbers

# Keys that are younger than some runs, and what those were trained with.
YOUNGER_KEYS = {"dataset.mask_resize": "center"}

# What a result does not depend on: left out of a run's id.
HARMLESS_KEYS = (
    "name",
    "study",
    "training.resume",
    "training.checkpoint_every",
    "training.checkpoint_keep",
    "training.checkpoint_seconds",
    "training.log_every",
    "training.panel_every",
    "training.panel_images",
    "training.baselines",
    "loader.num_workers",
    "dataset.root",
    "dataset.cache",
)


def is_harmless(key: str) -> bool:
    """Whether results do not depend on this dotted key."""
    return any(key == harmless or key.startswith(f"{harmless}.") for harmless in HARMLESS_KEYS)


def check_config(config: Config) -> None:
    """Raises ConfigError at the first value that is not allowed."""
    training, loader = config.training, config.loader
    for key, value, least in (
        ("training.epochs", training.epochs, 1),
        ("training.patience", training.patience, 1),
        ("training.checkpoint_every", training.checkpoint_every, 1),
        ("training.checkpoint_keep", training.checkpoint_keep, 1),
        ("training.max_skipped", training.max_skipped, 1),
        ("training.log_every", training.log_every, 1),
        ("training.panel_every", training.panel_every, 1),
        ("training.panel_images", training.panel_images, 1),
        ("loader.batch_size", loader.batch_size, 1),
        ("loader.num_workers", loader.num_workers, 0),
        ("threads", config.threads, 1),
        ("seed", config.seed, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{key}={value}; allowed are whole numbers from {least}")
    if config.precision not in PRECISIONS:
        raise ConfigError(f"precision={config.precision}; allowed are {', '.join(PRECISIONS)}")
    if training.on_nonfinite not in ("stop", "skip"):
        raise ConfigError(f"training.on_nonfinite={training.on_nonfinite}; allowed are stop, skip")
    if config.monitor.mode not in ("max", "min"):
        raise ConfigError(f"monitor.mode={config.monitor.mode}; allowed are max, min")
    if not DEVICES.fullmatch(config.device):
        raise ConfigError(f"device={config.device}; allowed are auto, cpu, cuda, cuda:1 (any number), mps")


def check_doctor(config: DoctorConfig) -> None:
    """Raises ConfigError at the first value that is not allowed."""
    if config.format not in ("text", "json"):
        raise ConfigError(f"format={config.format}; allowed are text, json")


def check_evaluate(config: EvaluateConfig) -> None:
    """Raises ConfigError at the first value that is not allowed."""
    words = config.run if isinstance(config.run, list) else [config.run]
    if not all(isinstance(word, str) for word in words):
        raise ConfigError(f"run={config.run}; allowed are a run's folder, best, SWEEP:top3, or a list of these")
    for key, value, allowed in (
        ("split", config.split, ("val", "test")),
        ("size", config.size, ("training", "full")),
        ("checkpoint", config.checkpoint, ("best", "last")),
        ("format", config.format, ("text", "json")),
        ("precision", config.precision or "auto", PRECISIONS),
    ):
        if value not in allowed:
            raise ConfigError(f"{key}={value}; allowed are {', '.join(allowed)}")
    for key, number, least in (
        ("batch_size", config.batch_size, 1),
        ("num_workers", config.num_workers, 0),
        ("threads", config.threads, 1),
    ):
        if number is not None and number < least:
            raise ConfigError(f"{key}={number}; allowed are whole numbers from {least}")
    if not DEVICES.fullmatch(config.device):
        raise ConfigError(f"device={config.device}; allowed are auto, cpu, cuda, cuda:0, mps")
