"""Real runs that are killed go on to the same end as one that nobody disturbed (benchmarks/kills.py)."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.killed_run import VALIDATION
from benchmarks.kills import WAYS, outcome, run_trials, summary, train_to_the_end


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the points of a kill are Linux's file operations")
def test_thirty_killed_runs_end_like_an_undisturbed_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        kills = run_trials(30, seed=0, parallel=2, home=tmp_path / "runs")
        print(summary(kills))
    assert [kill for kill in kills if not kill.identical] == []
    assert len(kills) == 30
    assert sum(kill.in_epoch for kill in kills) >= 10
    assert sum(kill.in_save for kill in kills) >= 10
    assert {kill.way for kill in kills} == set(WAYS)
    assert sum(kill.kind == VALIDATION for kill in kills) >= 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_comparison_sees_a_difference(tmp_path: Path) -> None:
    """Else thirty of thirty would say nothing: another seed, and one weight that is another."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = train_to_the_end(tmp_path / "one"), train_to_the_end(tmp_path / "two", "seed=1")
    undisturbed, other = outcome(one), outcome(two)
    assert undisturbed.keys() == other.keys()
    assert {"last.pt", "best.pt", "epoch_0002.pt", "epoch_0004.pt", "metrics.csv", "train/loss", "val/miou"} <= undisturbed.keys()
    for key in ("last.pt", "best.pt", "metrics.csv", "train/loss", "val/miou"):
        assert undisturbed[key] != other[key], key
    last = one / "checkpoints" / "last.pt"
    saved = torch.load(last, weights_only=True)
    saved["optimizer"]["state"][0]["exp_avg"][0, 0, 0, 0] += 1e-7
    last.unlink()  # it may be best.pt under another name
    torch.save(saved, last)
    changed = outcome(one)
    assert [key for key in undisturbed if undisturbed[key] != changed[key]] == ["last.pt"]
