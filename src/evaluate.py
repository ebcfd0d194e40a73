"""Scores finished runs on a split. `python -m src.evaluate --help` says how to ask for it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is imported only once everything is composed and checked
    from src.config import EvaluateConfig
    from src.stored_config import StoredConfig
    from src.stored_evaluations import Evaluation

PURPOSE = """\
Scores a run's checkpoint on a split, from that run's own configuration: whole, and each video of it.
No other command scores the test split."""
EXAMPLES = """\
  python -m src.evaluate run=FOLDER                        on val: the score that training gave
  python -m src.evaluate run=FOLDER split=test size=full   on test, at the masks' own size
  python -m src.evaluate run=best split=test               the best finished run under outputs/
  python -m src.evaluate run=channels_by_init:top3         the three best of a sweep (its name or its folder)
  python -m src.evaluate run=[FOLDER,FOLDER] format=json   a line of JSON for each"""


def evaluate(config: "EvaluateConfig") -> int:
    """Scores each run asked for, writes what was found into its folder and prints it."""
    import json

    from src.durable import writing
    from src.studies.choosing import choose_runs

    folders = choose_runs(config.run)
    stored = [read_checked(folder, config) for folder in folders]

    from src.evaluation import Request, evaluate_checkpoint
    from src.stored_evaluations import write_evaluation

    for folder, own in zip(folders, stored, strict=True):
        evaluation = evaluate_checkpoint(folder, own, Request(config.split, config.size, config.checkpoint))
        for line in doubts(folder, evaluation):
            print(f"warning: {line}", file=sys.stderr)
        with writing(folder):
            file = write_evaluation(folder, evaluation)
        if config.format == "json":
            print(json.dumps({"folder": str(folder), "file": str(file), **evaluation.facts}, allow_nan=False), flush=True)
        else:
            show(folder, evaluation, file)
    return 0


def read_checked(folder: Path, config: "EvaluateConfig") -> "StoredConfig":
    """The run's configuration with what this command asks for; all that can be checked without torch is.

    Raises:
        UserError: If there is no such checkpoint, or the run's files are not what this project wrote.
    """
    from src.errors import CheckpointError
    from src.run_folder import read_run
    from src.stored_config import read_stored_config

    own = read_stored_config(folder, config.root)
    file = folder / "checkpoints" / f"{config.checkpoint}.pt"
    if not file.is_file():
        raise CheckpointError(f"{file}: no such checkpoint; the run is {read_run(folder).get('status', 'of unknown status')}")
    own.device, own.threads = config.device, config.threads or own.threads
    own.precision = config.precision or str(read_run(folder).get("precision") or own.precision)
    own.loader.num_workers, own.loader.batch_size = config.num_workers, config.batch_size or own.loader.batch_size
    return own


def doubts(folder: Path, evaluation: "Evaluation") -> list[str]:
    """What to know of this score: an unfinished run, data that have changed since training, test images near trained ones."""
    from src.studies.reading import Run, read_run

    run = Run(folder, read_run(folder))
    lines = [] if run.status == "finished" else [f"{folder} is {run.status}, not finished"]
    split, now = evaluation.facts["split"], evaluation.protocol["scored_data"]
    before = (run.facts.get("data_fingerprint") or {}).get(split, now)  # a run knows nothing of test
    if before != now:
        lines.append(f"{split} was {before} when {folder} was trained and is {now} now: other data, so another score")
    return [*lines, *evaluation.facts["leakage"]["warnings"]]


def show(folder: Path, evaluation: "Evaluation", file: Path) -> None:
    """Prints the scores: the whole split, each video, each class."""
    from rich.console import Console

    facts, console = evaluation.facts, Console(soft_wrap=True, highlight=False)
    print(
        f"{folder}: {facts['checkpoint']} checkpoint (epoch {facts['epoch']}) on {facts['split']}"
        f" at {'its own' if facts['size'] == 'full' else 'the training'} size, protocol {evaluation.fingerprint}"
    )
    rows = [("whole split", evaluation.scores), *((name or "no video", row) for name, row in facts["sequences"].items())]
    totals = ("miou", "pixel_accuracy", "class_accuracy")
    console.print(
        table(
            ["", "images", "mIoU", "pixel accuracy", "class accuracy"],
            [[name, str(row["images"]), *(number(row[total]) for total in totals)] for name, row in rows],
        )
    )
    console.print(table(["class", "IoU"], [[name, number(iou)] for name, iou in evaluation.scores["iou"].items()]))
    print(f"written to {file} and its .npz (one confusion matrix for each image)")


def table(head: list[str], rows: list[list[str]]) -> Any:
    """A table whose first column is text and whose others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from src.escaping import clean

    made = Table(box=SIMPLE_HEAD)
    for place, title in enumerate(head):
        made.add_column(title, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(clean(cell)) for cell in row))
    return made


def number(value: float | None) -> str:
    """A score as text; one that nothing says anything of is absent."""
    return "absent" if value is None else f"{value:.4f}"


def main() -> None:
    """The command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from src.help import help_text

        print(help_text("evaluate", "evaluate", PURPOSE, EXAMPLES, is_swept=False), end="")
        return
    from src import cli
    from src.config import check_evaluate

    cli.answer(evaluate, check_evaluate, "evaluate")


if __name__ == "__main__":
    main()
