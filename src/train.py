"""Trains a segmentation network. `python -m src.train --help` says how to ask for it."""

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported only once everything is composed and checked
    from src.build import Experiment
    from src.checkpoint import Checkpoints
    from src.config import Config
    from src.recorder import Recorder
    from src.run_folder import Launch, RunFolder
    from src.state import TrainState

LOGGER = logging.getLogger("src")
PURPOSE = "Trains a segmentation network; everything is a key that can be set."
EXAMPLES = """\
  python -m src.train                                         AttU_Net on CamVid
  python -m src.train experiment=quickstart                   on the embedded data set, minutes on two CPU cores
  python -m src.train model=unet optimizer=adamw optimizer.lr=0.001
  python -m src.train -m model.init=normal,kaiming seed=0,1   a sweep: one run for each combination
  python -m src.train training.resume=auto                    goes on where the same command was interrupted"""


def train(config: "Config", launch: "Launch") -> float:
    """One run, from its configuration to its best score; everything it leaves behind lies in its folder."""
    from src.build import build
    from src.console import ProgressView
    from src.loop import EpochRecord, fit
    from src.recorder import Recorder
    from src.run_folder import Interrupted
    from src.signals import StopSignals
    from src.studies.isolation import is_child

    experiment = build(config)
    state = experiment.state
    run, checkpoints = start_or_resume(config, launch, state)
    with (
        ProgressView(run.path / "train.log", config.training.epochs, launch.redactor) as view,
        run.running(launch, describe(experiment)),
        StopSignals() as stop,
    ):
        recorder = Recorder(run.path, experiment.val_data.classes, experiment.setup.ignore_index, state.epoch)
        announce(config, launch, run, experiment)
        recorder.write_text("config", launch.config_yaml)
        epochs = state.epoch if is_last(config, state) else config.training.epochs  # a run that patience ended stays ended
        for record in fit(state, experiment.setup, epochs, config.training.log_every, config.monitor):
            if isinstance(record, EpochRecord):
                view.epoch(record)
                recorder.write(record)
                write_pictures(config, experiment, recorder)
                checkpoints.save_epoch(state, record.is_best)
                run.write_scores(state, record)
                if is_last(config, state):
                    break
            else:
                view.step(record)
            if stop.received:
                checkpoints.save_last(state)
                recorder.close()
                hint = "" if is_child() else "; the same command with training.resume=auto goes on from here"
                LOGGER.info("interrupted and saved%s", hint)
                raise Interrupted(stop.received)
        recorder.close()
        conclude(config, run, experiment, checkpoints)
    return state.best_score


def start_or_resume(config: "Config", launch: "Launch", state: "TrainState") -> "tuple[RunFolder, Checkpoints]":
    """The run's folder and checkpoints; `state` continues from there, or starts from `model.weights` if they are given."""
    from src.build import stretch_schedule
    from src.checkpoint import Checkpoints, load_weights
    from src.resume import claim_run, find_previous

    previous = find_previous(config, launch)
    if previous is None and config.model.get("weights"):
        load_weights(Path(config.model["weights"]), state.model)
    run = claim_run(config, launch, previous)
    checkpoints = Checkpoints(run.path / "checkpoints", config.training.checkpoint_every, config.training.checkpoint_keep)
    if run.is_resumed:
        checkpoints.load_last(state)
        if run.facts["config"]["training"]["epochs"] != config.training.epochs:
            stretch_schedule(config, state)
    return run, checkpoints


def is_last(config: "Config", state: "TrainState") -> bool:
    """Whether training ends with the epoch that was just finished: the last one, or the end of `training.patience`."""
    patience = config.training.patience
    return state.epoch >= config.training.epochs or (patience is not None and state.epochs_without_gain >= patience)


def describe(experiment: "Experiment") -> dict[str, object]:
    """Facts about the run that its configuration does not tell, for `run.json`."""
    setup, state = experiment.setup, experiment.state
    return {
        "device": setup.compute.name,
        "precision": setup.compute.precision,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "num_classes": setup.num_classes,
        "class_names": setup.class_names,
        "images": {"train": len(experiment.train_data), "val": len(experiment.val_data)},
        "data_fingerprint": {"train": experiment.train_data.fingerprint, "val": experiment.val_data.fingerprint},
        "protocol": experiment.val_data.protocol,
    }


def announce(config: "Config", launch: "Launch", run: "RunFolder", experiment: "Experiment") -> None:
    """What is about to happen, in a few lines."""
    facts, train_data = run.facts, experiment.train_data
    height, width = experiment.val_data[0][1].shape
    LOGGER.info("run folder: %s%s", run.path, f" (resumed after epoch {experiment.state.epoch})" if run.is_resumed else "")
    LOGGER.info(
        "%s with %s parameters on %s in %s; %d training and %d validation images of %dx%d, batches of %d",
        *(type(experiment.state.model).__name__, f"{facts['parameters']:,}", facts["device"], facts["precision"]),
        *(len(train_data), len(experiment.val_data), height, width, config.loader.batch_size),
    )
    LOGGER.debug("command: %s", " ".join(launch.command))
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


def write_pictures(config: "Config", experiment: "Experiment", recorder: "Recorder") -> None:
    """Every `panel_every` epochs, and at the last: predictions and gates on the same validation images."""
    import numpy as np
    import torch

    from src.gate_analysis.recording import record_attention
    from src.loop import predict

    epoch, data = experiment.state.epoch, experiment.val_data
    if epoch % config.training.panel_every and not is_last(config, experiment.state):
        return
    chosen = np.linspace(0, len(data) - 1, min(config.training.panel_images, len(data))).round().astype(int)
    images, truths = (np.stack(arrays) for arrays in zip(*(data[int(index)] for index in chosen), strict=True))
    predictions: list[np.ndarray] = []
    maps = record_attention(
        experiment.state.model,
        lambda: predictions.append(predict(experiment.state.model, experiment.setup, torch.from_numpy(images))),
    )
    recorder.write_panels(epoch, images, truths, predictions[0])
    if maps:
        names = [f"gate {number} ({m.shape[1]}x{m.shape[2]})" for number, m in enumerate(maps, start=1)]
        recorder.write_attention(epoch, images, maps, names)
    recorder.write_curves()


def conclude(config: "Config", run: "RunFolder", experiment: "Experiment", checkpoints: "Checkpoints") -> None:
    """The result, what to read it beside, and where to look."""
    state, train, val = experiment.state, experiment.train_data, experiment.val_data
    if state.epoch < config.training.epochs:
        LOGGER.info("stopped early: no better %s for training.patience=%s epochs", config.monitor.tag, config.training.patience)
    LOGGER.info("best %s: %.4f at epoch %d of %d", config.monitor.tag, state.best_score, state.best_epoch, state.epoch)
    if config.training.baselines:
        from src.datasets.augmentation import resize
        from src.datasets.baselines import colour_and_row_miou, majority_map_miou

        samples = [resize(*train.plain(index), train.image_size) for index in range(len(train))]
        val_samples = [val.plain(index) for index in range(len(val))]
        facts = {"num_classes": len(val.classes), "ignore_index": val.ignore_index}
        majority = majority_map_miou((m for _, m in samples), (m for _, m in val_samples), **facts)
        colour = colour_and_row_miou(samples, val_samples, **facts)
        run.write(baselines={"majority_per_pixel": majority, "colour_and_row": colour})
        LOGGER.info("beside it, val/miou without a network: majority class of each pixel %.4f,", majority)
        LOGGER.info("  best class for each colour and row %.4f", colour)
    LOGGER.info("checkpoints: %s", checkpoints.folder)
    LOGGER.info("run folder: %s", run.path)
    LOGGER.info("look at it: %s", tensorboard_command(run))


def tensorboard_command(run: "RunFolder") -> str:
    """Shows this run, with the TensorBoard that lies beside this Python."""
    program = Path(sys.executable).with_name("tensorboard")
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return f"{program if program.exists() else 'tensorboard'} --logdir {run.path}"


def main() -> None:
    """The command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from src.help import help_text

        print(help_text("config", "train", PURPOSE, EXAMPLES), end="")
        return
    gc.disable()  # until cli.main enables it: to collect what Hydra makes takes time and frees nothing
    from src import cli

    cli.main(train, check_point)


def check_point(config: "Config") -> None:
    """Raises what would keep this point of a sweep from being trained."""
    from src.build import check
    from src.checkpoint import read_weights

    model = check(config)
    if config.model.get("weights"):
        read_weights(Path(config.model["weights"]), model)


if __name__ == "__main__":
    main()
