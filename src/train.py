"""Trains a segmentation network. `python -m src.train --help` says how to ask for it."""

import contextlib
import gc
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported only once everything is composed and checked
    from src.build import Experiment
    from src.checkpoint import Checkpoints
    from src.config import Config
    from src.loop import EpochRecord
    from src.ranks import Ranks
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
    """One run, from its configuration to its best score; of the processes that torchrun starts, the first one leads."""
    from src.ranks import Ranks

    with Ranks() as ranks:
        return lead(config, launch, ranks) if ranks.is_first else follow(config, ranks)


def lead(config: "Config", launch: "Launch", ranks: "Ranks") -> float:
    """Trains, and writes everything that a run leaves behind."""
    from src.build import build
    from src.console import ProgressView, keep_early_lines
    from src.failures import told_in_one_line
    from src.loop import EpochRecord, fit
    from src.resume import FINISHED
    from src.signals import Interrupted, StopSignals
    from src.summary import announce, conclude, describe, tell_nothing_is_left

    keep_early_lines(launch.redactor)
    experiment = build(config)
    state = experiment.state
    run, checkpoints = start_or_resume(config, launch, experiment, ranks)
    if run.facts.get("status") == FINISHED and is_done(config, state):
        tell_nothing_is_left(config, run, state)
        return state.best_score
    with ProgressView(run.path / "train.log", config.training.epochs, launch.redactor) as view:
        with StopSignals(answers=True) as stop, run.running(launch, describe(config, experiment, run.facts)):
            recorder = open_recorder(config, launch, run, experiment)
            announce(config, launch, run, experiment)
            with contextlib.ExitStack() as at_the_end, checkpoints, told_in_one_line(config, experiment):
                at_the_end.callback(note_saved, run, checkpoints, recorder)  # of the last save too, however training ends
                for record in fit(state, experiment.setup, partial(is_done, config), config.training.log_every, config.monitor):
                    if isinstance(record, EpochRecord):
                        view.epoch(record)
                        end_epoch(config, experiment, run, checkpoints, recorder, record)
                    else:
                        view.step(record)
                        checkpoints.save_if_due(state)
                    if (signal_number := ranks.most(stop.received)) and not is_done(config, state):
                        if not isinstance(record, EpochRecord):  # after which it has been saved
                            checkpoints.save_last(state)
                        put_away(run, checkpoints, recorder, interrupted=True)
                        raise Interrupted(signal_number)
                put_away(run, checkpoints, recorder)
        conclude(config, run, experiment, checkpoints)
    return state.best_score


def follow(config: "Config", ranks: "Ranks") -> float:
    """Trains along with the first rank, from where that one begins to where it ends, and writes nothing."""
    from src.build import build
    from src.failures import told_in_one_line
    from src.loop import fit
    from src.signals import Interrupted, StopSignals

    experiment = build(config)
    state = experiment.state
    with StopSignals() as stop, told_in_one_line(config, experiment):
        begin(config, state, **ranks.tell())
        for _ in fit(state, experiment.setup, partial(is_done, config), config.training.log_every, config.monitor):
            if (signal_number := ranks.most(stop.received)) and not is_done(config, state):
                raise Interrupted(signal_number)
    return state.best_score


def start_or_resume(
    config: "Config", launch: "Launch", experiment: "Experiment", ranks: "Ranks"
) -> "tuple[RunFolder, Checkpoints]":
    """The run's folder and checkpoints; the state is brought to where the run begins, on every rank."""
    from src.checkpoint import Checkpoints
    from src.resume import check_data, claim_run, find_previous, is_finished_on_other_data

    previous, training, state = find_previous(config, launch), config.training, experiment.state
    data = {data.split: data.fingerprint for data in (experiment.train_data, experiment.val_data)}
    if previous and training.resume == "auto" and not launch.folder and is_finished_on_other_data(previous, data):
        previous = None
    if previous is None:
        begin(config, state)  # first, so that weights that do not fit leave no folder
    else:
        check_data(previous, data)
    run = claim_run(config, launch, previous)
    checkpoints = Checkpoints(
        *(run.path / "checkpoints", training.checkpoint_every, training.checkpoint_keep, training.checkpoint_seconds),
        run.count_failure,
    )
    start = {}
    if run.is_resumed:
        start = {"folder": str(checkpoints.folder)}
        begin(config, state, **start)
        checkpoints.go_on_from(state)
    ranks.tell(start)
    return run, checkpoints


def begin(config: "Config", state: "TrainState", folder: str | None = None) -> None:
    """Continues from the checkpoints in `folder`, or starts from `model.weights` if they are given."""
    from src.build import stretch_schedule
    from src.restore import load_last, load_weights

    if folder is not None:
        load_last(Path(folder), state)
        stretch_schedule(config, state)
    elif config.model.get("weights"):
        load_weights(Path(config.model["weights"]), state.model)


def is_done(config: "Config", state: "TrainState") -> bool:
    """Whether training has ended: after its last epoch, or that of `training.patience`, and so it stays."""
    patience = config.training.patience
    return state.epoch >= config.training.epochs or (patience is not None and state.epochs_without_gain >= patience)


def open_recorder(config: "Config", launch: "Launch", run: "RunFolder", experiment: "Experiment") -> "Recorder":
    """What writes metrics and pictures, with the configuration written already."""
    from src.checkpoint import moment_of
    from src.durable import writing
    from src.recorder import Recorder

    with writing(run.path):
        recorder = Recorder(run.path, experiment.val_data.classes, experiment.setup.ignore_index, experiment.state.epoch)
        recorder.write_text("config", launch.config_yaml)
        recorder.write_hparams(run.facts["config"], run.facts["overrides"], config.monitor.tag)
        if run.is_resumed:  # run.json may know of epochs whose checkpoint did not survive, or not know of some that did
            run.note_scores(moment_of(experiment.state), recorder.rows)
            run.write()
    return recorder


def note_saved(run: "RunFolder", checkpoints: "Checkpoints", recorder: "Recorder") -> None:
    """Lets `run.json` say the scores of the state that is saved, which may be older than the last epoch."""
    if checkpoints.saved:
        run.note_scores(checkpoints.saved, recorder.rows)


def end_epoch(
    config: "Config",
    experiment: "Experiment",
    run: "RunFolder",
    checkpoints: "Checkpoints",
    recorder: "Recorder",
    record: "EpochRecord",
) -> None:
    """What is due after an epoch. Its row comes before its checkpoint: a run that goes on drops rows too many."""
    with run.going_on("metrics.csv"):
        recorder.write(record, config.monitor.tag)
    with run.going_on("figures"):
        write_pictures(config, experiment, recorder)
    checkpoints.save_epoch(experiment.state, record.is_best)
    with run.going_on("run.json"):
        note_saved(run, checkpoints, recorder)
        run.write()


def write_pictures(config: "Config", experiment: "Experiment", recorder: "Recorder") -> None:
    """Every `panel_every` epochs, and at the last: predictions and gates on the same validation images."""
    import numpy as np
    import torch

    from src.gate_analysis.recording import record_attention
    from src.loop import predict

    epoch, data = experiment.state.epoch, experiment.val_data
    if epoch % config.training.panel_every and not is_done(config, experiment.state):
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


def put_away(run: "RunFolder", checkpoints: "Checkpoints", recorder: "Recorder", interrupted: bool = False) -> None:
    """Returns once the run is on the disk; raises UserError if its newest state or a row is not."""
    from src.durable import writing
    from src.studies.parents import is_child

    checkpoints.finish()
    with writing(run.path):
        recorder.flush()
    with run.going_on("figures and metrics.xlsx", Exception):
        recorder.close()
    if interrupted:
        hint = "" if is_child() else "; the same command with training.resume=auto goes on from here"
        LOGGER.info("interrupted and saved%s", hint)


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
    from src.restore import read_weights

    model = check(config)
    if config.model.get("weights"):
        read_weights(Path(config.model["weights"]), model)


if __name__ == "__main__":
    main()
