"""The keys that this project owns: their types, meaning and allowed values. The values stand in conf/."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from src.errors import ConfigError
from src.ranges import Range, check_numbers

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass
class MonitorConfig:
    """Which score decides what `best` is."""

    tag: str = MISSING  # any tag of metrics.csv
    mode: str | None = MISSING  # max, min; null: what is better for this tag (src/tags.py)


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


# The smallest and the largest allowed value of each number (src/ranges.py says how it is read).
RANGES: dict[str, Range] = {
    "seed": (0, 2**32 - 1),  # what NumPy and torch both take
    "threads": (1, 1024),
    "batch_size": (1, 65536),  # of src.evaluate, as the next
    "num_workers": (0, 256),  # each is a process
    "loader.batch_size": (1, 65536),
    "loader.num_workers": (0, 256),
    "training.epochs": (1, 10**6),
    "training.patience": (1, 10**6),
    "training.checkpoint_every": (1, 10**6),
    "training.checkpoint_keep": (1, 10**6),
    "training.checkpoint_seconds": (0.0, 1e9),
    "training.max_skipped": (1, 10**6),
    "training.log_every": (1, 10**6),
    "training.panel_every": (1, 10**6),
    "training.panel_images": (1, 1024),
    "study.budget.hours": (0.0, 1e6),
    "model.channels": (1, 65536),
    "model.gate_channels": (1, 65536),
    "model.init_gain": (0.0, 1e6),
    "dataset.image_size": (1, 16384),
    "dataset.render_size": (1, 16384),
    "dataset.render_seed": (0, 2**32 - 1),
    "dataset.num_train": (1, 10**5),
    "dataset.num_val": (1, 10**5),
    "dataset.num_test": (1, 10**5),
    "dataset.num_classes": (2, 255),
    "dataset.ignore_index": (0, 255),
    "dataset.classes": (0, 2**24),  # stored in masks
    "dataset.void": (0, 2**24),
    "optimizer.lr": (0.0, 1e38),
    "optimizer.momentum": (0.0, 1.0),
    "optimizer.betas": (0.0, 1.0),
    "optimizer.weight_decay": (0.0, 1e6),
    "optimizer.eps": (0.0, 1.0),
    "scheduler.gamma": (0.0, 1e3),
    "scheduler.power": (0.0, 1e3),
    "scheduler.step_size": (1, 10**6),
    "scheduler.T_max": (1, 10**6),
    "scheduler.total_iters": (1, 10**6),
    "scheduler.warmup_epochs": (0, 10**6),
}


def check_config(config: Config) -> None:
    """Raises ConfigError at the first value that is not allowed."""
    check_numbers(asdict(config), RANGES)
    for key, value, allowed in (
        ("precision", config.precision, PRECISIONS),
        ("training.on_nonfinite", config.training.on_nonfinite, ("stop", "skip")),
        ("monitor.mode", config.monitor.mode or "max", ("max", "min")),
    ):
        if value not in allowed:
            raise ConfigError(f"{key}={value}; allowed are {', '.join(allowed)}")
    if not DEVICES.fullmatch(config.device):
        raise ConfigError(f"device={config.device}; allowed are auto, cpu, cuda, cuda:1 (any number), mps")


def check_doctor(config: DoctorConfig) -> None:
    """Raises ConfigError at the first value that is not allowed."""
    check_numbers({"dataset": config.dataset}, RANGES)
    if config.format not in ("text", "json"):
        raise ConfigError(f"format={config.format}; allowed are text, json")


def check_evaluate(config: EvaluateConfig) -> None:
    """Raises ConfigError at the first value that is not allowed."""
    words = config.run if isinstance(config.run, list) else [config.run]
    if not all(isinstance(word, str) for word in words):
        raise ConfigError(f"run={config.run}; allowed are a run's folder, best, SWEEP:top3, or a list of these")
    check_numbers(vars(config), RANGES)
    for key, value, allowed in (
        ("split", config.split, ("val", "test")),
        ("size", config.size, ("training", "full")),
        ("checkpoint", config.checkpoint, ("best", "last")),
        ("format", config.format, ("text", "json")),
        ("precision", config.precision or "auto", PRECISIONS),
    ):
        if value not in allowed:
            raise ConfigError(f"{key}={value}; allowed are {', '.join(allowed)}")
    if not DEVICES.fullmatch(config.device):
        raise ConfigError(f"device={config.device}; allowed are auto, cpu, cuda, cuda:0, mps")
