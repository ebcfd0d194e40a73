"""What a run says of itself: the facts in `run.json`, the lines at its start and at its end."""

import logging
from typing import TYPE_CHECKING, Any

import torch

from src.environment import program
from src.models.cost import count_gmacs
from src.protocol import describe_pretraining, describe_protocol, protocol_fingerprint
from src.tags import POINTS, describe_tag

if TYPE_CHECKING:
    from src.build import Experiment
    from src.checkpoint import Checkpoints
    from src.config import Config
    from src.datasets.reader import SegmentationDataset
    from src.run_folder import Launch, RunFolder
    from src.state import TrainState

LOGGER = logging.getLogger("src")


def describe(config: "Config", experiment: "Experiment", earlier: dict[str, Any]) -> dict[str, Any]:
    """Facts about the run that its configuration does not tell, for `run.json`; `earlier` is what that says already."""
    setup, state = experiment.setup, experiment.state
    trained_on = experiment.train_data.fingerprint
    epochs_before = earlier.get("config", {}).get("training", {}).get("epochs", config.training.epochs)
    pretraining = describe_pretraining(config.model.get("weights"), earlier.get("protocol") or {})
    protocol = describe_protocol(experiment.val_data, trained_on, pretraining)
    height, width = experiment.val_data[0][1].shape
    return {
        "device": setup.compute.name,
        "precision": setup.compute.precision,
        "ranks": setup.ranks.size,
        "threads": torch.get_num_threads(),
        "lengthened": earlier.get("lengthened", False) or epochs_before != config.training.epochs,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "gmacs": count_gmacs(state.model, (height, width)),
        "num_classes": setup.num_classes,
        "class_names": setup.class_names,
        "images": {"train": len(experiment.train_data), "val": len(experiment.val_data)},
        "data_fingerprint": {"train": trained_on, "val": experiment.val_data.fingerprint},
        "protocol": protocol,
        "protocol_fingerprint": protocol_fingerprint(protocol),
    }


def announce(config: "Config", launch: "Launch", run: "RunFolder", experiment: "Experiment") -> None:
    """What is about to happen, in a few lines."""
    facts, train_data = run.facts, experiment.train_data
    height, width = experiment.val_data[0][1].shape
    epoch, step = experiment.state.epoch, experiment.state.step
    resumed = f" (resumed after epoch {epoch}{f' and {step} steps' if step else ''})" if run.is_resumed else ""
    LOGGER.info("run folder: %s%s", run.path, resumed)
    LOGGER.info(
        "%s with %s parameters on %s in %s; %d training and %d validation images of %dx%d, batches of %d",
        *(type(experiment.state.model).__name__, f"{facts['parameters']:,}", facts["device"], facts["precision"]),
        *(len(train_data), len(experiment.val_data), height, width, config.loader.batch_size),
    )
    LOGGER.debug("command: %s", run.facts["command"])
    for data in (train_data, experiment.val_data):
        for note in data.notes:
            LOGGER.info("beware, %s: %s", data.split, note)
    absent = [label.name for label, pixels in zip(train_data.classes, train_data.class_pixels, strict=False) if not pixels]
    if absent:
        LOGGER.info("beware: no training pixel of %s; is dataset.labels right?", ", ".join(absent))
    if config.training.resume == "auto" and not run.is_resumed:
        LOGGER.info("nothing unfinished of this configuration to go on with: a new run, id %s", launch.short_id)
    if config.model.get("weights"):
        LOGGER.info("weights to start from: %s", config.model["weights"])
    LOGGER.info("watch it: %s", tensorboard_command(run))


def conclude(config: "Config", run: "RunFolder", experiment: "Experiment", checkpoints: "Checkpoints") -> None:
    """The result, what to read it beside, and where to look."""
    state, train, val = experiment.state, experiment.train_data, experiment.val_data
    if state.epoch < config.training.epochs:
        LOGGER.info("stopped early: no better %s for training.patience=%s epochs", config.monitor.tag, config.training.patience)
    LOGGER.info("%s", describe_best(config, state))
    if config.training.baselines:
        with run.going_on("baselines", Exception):
            score_baselines(run, train, val)
    if failed := run.facts["failed_writes"]:
        rest = f"not saved are {', '.join(checkpoints.unsaved)}" if checkpoints.unsaved else "what they lost was written since"
        LOGGER.info("beware: %d writes failed on the way, see train.log; %s", failed, rest)
    LOGGER.info("checkpoints: %s", checkpoints.folder)
    LOGGER.info("run folder: %s", run.path)
    LOGGER.info("look at it: %s", tensorboard_command(run))


def describe_best(config: "Config", state: "TrainState") -> str:
    """The best score, and when it was reached."""
    unit = describe_tag(config.monitor.tag).unit
    score = f"{state.best_score:.4f}{f' {unit}' if unit not in ('', POINTS) else ''}"  # shares as they are stored
    return f"best {config.monitor.tag}: {score} at epoch {state.best_epoch} of {state.epoch}"


def tell_nothing_is_left(config: "Config", run: "RunFolder", state: "TrainState") -> None:
    """That a finished run stays as it is, and how to train on."""
    print(f"{run.path}: finished, {describe_best(config, state)}; nothing is left to do")
    print(f"more epochs: training.resume='{run.path}' and a larger training.epochs; from the start again: training.resume=never")


def score_baselines(run: "RunFolder", train: "SegmentationDataset", val: "SegmentationDataset") -> None:
    """What trivial predictors score on the validation images, for `run.json` and the console."""
    from src.datasets.augmentation import resize
    from src.datasets.baselines import colour_and_row_miou, majority_map_miou

    val_samples = [val.plain(index) for index in range(len(val))]
    size = val_samples[0][1].shape  # with dataset.image_size=null the training images may have another
    samples = [resize(*train.plain(index), size, train.mask_resize) for index in range(len(train))]
    facts = {"num_classes": len(val.classes), "ignore_index": val.ignore_index}
    majority = majority_map_miou((m for _, m in samples), (m for _, m in val_samples), **facts)
    colour = colour_and_row_miou(samples, val_samples, **facts)
    run.write(baselines={"majority_per_pixel": majority, "colour_and_row": colour})
    LOGGER.info("beside it, val/miou without a network: majority class of each pixel %.4f,", majority)
    LOGGER.info("  best class for each colour and row %.4f", colour)


def tensorboard_command(run: "RunFolder") -> str:
    """Shows this run, with the TensorBoard that lies beside this Python."""
    return f"{program('tensorboard')} --logdir {run.path}"
