"""Folders of runs as training leaves them, made by hand."""

import csv
import json
from pathlib import Path
from typing import Any

from src.durable import as_json
from src.studies.ledger import Study, note, write_study

CLASSES = ["Sky", "Road"]


def make_run(folder: Path, score: float, **more: Any) -> Path:
    """A finished run with two epochs, the first of which was the best one."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "name": "made",
        "seed": more.pop("seed", 0),
        "monitor": {"tag": "val/miou", "mode": "max"},
        "model": {
            "_target_": "src.models.attunet.AttU_Net",
            "channels": more.pop("channels", [4, 8]),
            "init": more.pop("init", "normal"),
        },
        "dataset": {"root": "/somewhere/secret", "image_size": [64, 80]},
        "training": {"epochs": 2},
        "loader": {"num_workers": more.pop("num_workers", 0)},
    }
    rows = [
        {"epoch": 1, "val/miou": score, "time/epoch_seconds": 2.0, "speed/images_per_second": 50.0},
        {"epoch": 2, "val/miou": score - 0.01, "time/epoch_seconds": 2.0, "speed/images_per_second": 52.0},
    ]
    facts: dict[str, Any] = {
        "status": "finished",
        "start": "2026-01-01T00:00:00+00:00",
        "config": config,
        "overrides": [f"seed={config['seed']}", f"model.init={config['model']['init']}"],
        "parameters": 1000 * config["model"]["channels"][0],
        "best_score": score,
        "best_epoch": 1,
        "best_scores": {"val/miou": score, "val/iou/Sky": score, "val/iou/Road": score / 2},
        "final_scores": {"val/miou": score - 0.01},
        "epoch": 2,
        "class_names": CLASSES,
        "protocol": {"split": "val", "scored_at": [64, 80]},
        "protocol_fingerprint": "0123abcd",
        "packages": {"torch": "2.13.0"},
        "device": "CPU",
        "precision": "fp32",
        "host": "a machine",
    }
    (folder / "run.json").write_text(json.dumps(as_json(facts | more)))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


SCORES = {  # three seeds of each
    ("normal", 4): (0.30, 0.31, 0.29),
    ("kaiming", 4): (0.36, 0.385, 0.365),
    ("normal", 8): (0.33, 0.36, 0.31),
    ("kaiming", 8): (0.40, 0.42, 0.41),
}


def make_sweep(folder: Path, question: str | None = "Does <b>kaiming</b> beat normal?") -> Path:
    """Twelve finished jobs: two widths, two inits, three seeds; with their ledger."""
    jobs = []
    for (init, width), scores in SCORES.items():
        for seed, score in enumerate(scores):
            name = f"{len(jobs)}_channels-{width}_init-{init}_seed-{seed}"
            make_run(folder / name, score, seed=seed, init=init, channels=[width, 2 * width])
            jobs.append({"name": name, "overrides": [f"seed={seed}"], "short_id": f"{len(jobs):08d}"})
    study = Study("made", question, [], {"tag": "val/miou", "mode": "max"}, "continue", {}, jobs)
    write_study(folder, study)
    for number in range(len(jobs)):
        note(folder, number, "running")
        note(folder, number, "finished", seconds=4.0)
    return folder
