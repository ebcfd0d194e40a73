"""Writes results.csv from the runs that run.sh left: `python experiments/flips/collect.py [OUTPUTS]`."""

import csv
import json
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = [
    "study",
    "augmentation",
    "scheduler",
    "seed",
    "best_val_miou",
    "best_epoch",
    "last_val_miou",
    "median_epoch_seconds",
    "commit",
    "short_id",
]


def row(folder: Path) -> list[object]:
    """One finished run."""
    facts = json.loads((folder / "run.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    seconds = statistics.median(float(epoch["time/epoch_seconds"]) for epoch in epochs)
    scores = [facts["best_score"], facts["best_epoch"], float(epochs[-1]["val/miou"])]
    study, _, augmentation = folder.parent.name.rpartition("_")
    scheduler = facts["config"]["scheduler"]["_target_"].rpartition(".")[2]
    who = [study, augmentation, scheduler, facts["config"]["seed"]]
    return [*who, *scores, round(seconds, 1), facts["git_commit"][:12], facts["short_id"]]


def main() -> None:
    """The command line."""
    outputs = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    files = [*outputs.glob("*_original/*/run.json"), *outputs.glob("*_flip/*/run.json")]
    runs = [file.parent for file in files if json.loads(file.read_text())["status"] == "finished"]
    rows = sorted(map(row, runs), key=lambda cells: [str(cell) for cell in cells])
    with (HERE / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    for name in sorted({f"{cells[0]} {cells[1]}" for cells in rows}):
        best = [float(str(cells[4])) for cells in rows if f"{cells[0]} {cells[1]}" == name]
        spread = statistics.stdev(best) if len(best) > 1 else float("nan")
        print(f"{name}: mean {statistics.mean(best):.4f}, standard deviation {spread:.4f}, n = {len(best)}")


if __name__ == "__main__":
    main()
