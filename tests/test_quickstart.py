"""The quick start shows the tool at work on a bare machine: minutes, and far better than a predictor without shape."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quick_start_learns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "src.train", "experiment=quickstart"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (file,) = tmp_path.glob("outputs/quickstart/*/run.json")
    run = json.loads(file.read_text())
    print(f"best val/miou {run['best_score']:.4f}, beside it {run['baselines']}, {run['start']} to {run['end']}")
    assert run["best_score"] >= 0.50
    assert run["baselines"]["majority_per_pixel"] < 0.25
    assert run["baselines"]["colour_and_row"] < 0.35
    assert f"run folder: {file.parent.relative_to(tmp_path)}" in done.stdout
    assert "tensorboard --logdir outputs/quickstart/" in done.stdout
