"""Adds the runs that run.sh left to results.csv: `python experiments/flips/collect.py [OUTPUTS]`."""

import csv
import json
import statistics
import sys
from pathlib import Path

RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = [
    "study",
    "augmentation",
    "init",
    "momentum",
    "scheduler",
    "seed",
    "best_val_miou",
    "best_epoch",
    "last_val_miou",
    "median_epoch_seconds",
    "commit",
    "short_id",
]


def row(folder: Path) -> dict[str, str]:
    """One finished run."""
    facts = json.loads((folder / "run.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    seconds = statistics.median(float(epoch["time/epoch_seconds"]) for epoch in epochs)
    scores = [facts["best_score"], facts["best_epoch"], float(epochs[-1]["val/miou"])]
    study, _, augmentation = folder.parent.name.rpartition("_")
    config = facts["config"]
    scheduler = config["scheduler"]["_target_"].rpartition(".")[2]
    recipe = [config["model"]["init"], config["optimizer"]["momentum"], scheduler, config["seed"]]
    cells = [study, augmentation, *recipe, *scores, round(seconds, 1), facts["git_commit"][:12], facts["short_id"]]
    return dict(zip(COLUMNS, map(str, cells), strict=True))


def main() -> None:
    """The command line."""
    outputs = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    files = [*outputs.glob("*_original/*/run.json"), *outputs.glob("*_flip/*/run.json")]
    runs = [file.parent for file in files if json.loads(file.read_text())["status"] == "finished"]
    with RESULTS.open(newline="") as file:
        rows = {known["short_id"]: known for known in csv.DictReader(file)}
    rows |= {found["short_id"]: found for found in map(row, runs)}
    ordered = sorted(rows.values(), key=lambda cells: [cells[key] for key in COLUMNS])
    with RESULTS.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(ordered)
    for study, augmentation in sorted({(cells["study"], cells["augmentation"]) for cells in ordered}):
        group = [cells for cells in ordered if (cells["study"], cells["augmentation"]) == (study, augmentation)]
        best = [float(cells["best_val_miou"]) for cells in group]
        spread = statistics.stdev(best) if len(best) > 1 else float("nan")
        print(f"{study} {augmentation}: mean {statistics.mean(best):.4f}, standard deviation {spread:.4f}, n = {len(best)}")


if __name__ == "__main__":
    main()
