"""Rows, tables and who is first."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from made_runs import SCORES, make_run, make_sweep
from scipy import stats

from src.studies.choosing import choose_runs
from src.studies.configurations import swept_keys
from src.studies.reading import Run, read_runs
from src.studies.statistics.standing import short_keys, short_values, standings


def runs_in(folder: Path) -> list[Run]:
    runs, problems = read_runs(folder)
    assert problems == []
    return runs


def test_seeds_of_one_configuration_are_one_row(tmp_path: Path) -> None:
    (table,) = standings(runs_in(make_sweep(tmp_path / "sweep")))
    assert [row.label for row in table.rows] == [
        "channels=8-16 init=kaiming",
        "channels=4-8 init=kaiming",
        "channels=8-16 init=normal",
        "channels=4-8 init=normal",
    ]
    assert [row.best.mean for row in table.rows] == pytest.approx([0.41, 0.37, 1.0 / 3, 0.30])
    assert [row.last.mean for row in table.rows] == pytest.approx([0.40, 0.36, 1.0 / 3 - 0.01, 0.29])
    expected = [stats.ttest_rel(SCORES["kaiming", 8], SCORES[key])[1] for key in (("kaiming", 4), ("normal", 8), ("normal", 4))]
    assert [claim.p for claim in table.claims] == pytest.approx(expected)
    assert {claim.family for claim in table.claims} == {6}  # pairs of four rows: any of them might have been first


def test_a_row_is_named_by_what_its_study_asks_though_it_is_the_only_one_yet(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 0.3)
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["study"] = {"crossed": {"model.init": ["normal", "kaiming"], "training.epochs": [2], "model.width": [1, 2]}}
    (run / "run.json").write_text(json.dumps(facts))
    (table,) = standings(runs_in(tmp_path))
    assert [row.label for row in table.rows] == ["init=normal"]


def test_what_was_scored_in_another_way_is_not_ranked_with_the_rest(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep")
    make_run(tmp_path / "other", 0.99, protocol_fingerprint="ffffffff", seed=7)
    tables = standings(runs_in(tmp_path))
    assert [len(table.rows) for table in tables] == [4, 1]
    assert tables[0].rows[0].best.mean == pytest.approx(0.41)


def test_names_are_short_and_never_the_same_for_two() -> None:
    keys = ["model._target_", "model.gate._target_", "model.init", "optimizer.lr", "scheduler.lr", "lr"]
    assert list(short_keys(keys).values()) == ["model", "gate", "init", "optimizer.lr", "scheduler.lr", "lr"]
    assert list(short_keys(["loss", "loss._target_"]).values()) == ["loss", "loss._target_"]
    values = ["torch.optim.SGD", "src.a.UNet", [4, 8], "4-8", None, 0.1]
    assert list(short_values(values).values()) == ["SGD", "UNet", "[4, 8]", "'4-8'", "None", "0.1"]
    assert list(short_values(["src.a.UNet", "src.b.UNet"]).values()) == ["'src.a.UNet'", "'src.b.UNet'"]


def test_harmless_keys_and_seeds_make_no_rows(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.3, seed=0, num_workers=0)
    make_run(tmp_path / "b", 0.4, seed=1, num_workers=2)
    assert swept_keys(runs_in(tmp_path)) == []
    (table,) = standings(runs_in(tmp_path))
    assert table.rows[0].scores == {0: 0.3, 1: 0.4}


def test_a_newer_run_of_the_same_seed_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    make_run(tmp_path / "b", 0.3, start="2026-01-01T00:00:00")
    make_run(tmp_path / "a", 0.4, start="2026-01-02T00:00:00")
    assert standings(runs_in(tmp_path))[0].rows[0].scores == {0: 0.4}


def test_only_finished_runs_with_a_score_stand(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.3)
    make_run(tmp_path / "failed", 0.9, status="failed", seed=1)
    make_run(tmp_path / "dead", 0.9, status="running", seed=2)
    make_run(tmp_path / "nan", 0.9, best_score=None, seed=3)
    (row,) = standings(runs_in(tmp_path))[0].rows
    assert ([run.seed for run in row.runs], row.best.mean) == ([0], 0.3)
    assert (row.seeds, row.lost) == (
        "1 of 4 trained",
        "1 of 4 seeds diverged; 1 of 4 failed: no reason known; 1 of 4 not finished yet",
    )
    assert {run.folder.name: run.status for run in runs_in(tmp_path)}["dead"] == "interrupted"
    assert math.isnan({run.folder.name: run.score for run in runs_in(tmp_path)}["nan"])


DIVERGED: dict[str, Any] = {"status": "failed", "error": "NonFiniteLossError: loss nan at step 7"}


def test_seeds_that_diverged_are_results(tmp_path: Path) -> None:
    """Three of five seeds of kaiming diverge in either way, all of xavier; what is left of kaiming would be first by its mean."""
    for seed in range(5):
        make_run(tmp_path / f"n{seed}", 0.30 + 0.01 * seed, seed=seed)
        lost = {"best_score": None} if seed == 4 else DIVERGED if seed > 1 else {}
        make_run(tmp_path / f"k{seed}", 0.9, seed=seed, init="kaiming", **lost)
        make_run(tmp_path / f"x{seed}", 0.9, seed=seed, init="xavier", **DIVERGED)
    make_run(tmp_path / "single", 0.2, init="default")
    (table,) = standings(runs_in(tmp_path))
    assert [(row.label, row.seeds, row.lost) for row in table.rows] == [
        ("init=normal", "5", ""),
        ("init=default", "1", ""),
        ("init=kaiming", "2 of 5 trained", "3 of 5 seeds diverged"),
        ("init=xavier", "0 of 5 trained", "5 of 5 seeds diverged"),
    ]
    assert [(claim.low, claim.p, claim.holds) for claim in table.claims] == [(None, None, False)] * 3
    assert table.rows[2].best.mean == pytest.approx(0.9)
    assert math.isnan(table.rows[3].best.mean)


def test_one_that_is_left_alone_is_named_by_what_was_swept(tmp_path: Path) -> None:
    make_run(tmp_path / "n", 0.3)
    make_run(tmp_path / "k", 0.9, init="kaiming", **DIVERGED)
    make_run(tmp_path / "o", 0.9, init="orthogonal", status="running")
    (table,) = standings(runs_in(tmp_path))
    assert [row.label for row in table.rows] == ["init=normal", "init=kaiming"]  # of orthogonal there is nothing yet


def test_what_is_not_finished_yet_is_no_result(tmp_path: Path) -> None:
    """It neither puts a row behind others nor takes the place of a score; a newer result of a seed does."""
    for seed in range(3):
        make_run(tmp_path / f"n{seed}", 0.30 + 0.01 * seed, seed=seed)
        make_run(tmp_path / f"k{seed}", 0.40, seed=seed, init="kaiming", status="running" if seed == 2 else "finished")
    make_run(tmp_path / "again", 0.1, seed=0, init="kaiming", start="2026-03-01T00:00:00+00:00", status="interrupted")
    (table,) = standings(runs_in(tmp_path))
    assert [(row.label, row.seeds, row.lost) for row in table.rows] == [
        ("init=kaiming", "2 of 3 finished", "1 of 3 not finished yet"),
        ("init=normal", "3", ""),
    ]
    make_run(tmp_path / "anew", 0.1, seed=0, init="kaiming", start="2026-02-01T00:00:00+00:00", **DIVERGED)
    assert [row.label for row in standings(runs_in(tmp_path))[0].rows] == ["init=normal", "init=kaiming"]


def test_the_newer_run_of_a_seed_is_told_by_the_moment_it_began(tmp_path: Path) -> None:
    """Clocks are put back at 01:00 UTC; between time zones the later text may be the earlier moment too."""
    make_run(tmp_path / "summer", 0.3, start="2026-10-25T02:30:00+02:00")  # 00:30 UTC
    make_run(tmp_path / "winter", 0.4, start="2026-10-25T02:10:00+01:00")  # 01:10 UTC
    make_run(tmp_path / "east", 0.5, seed=1, start="2026-10-25T09:00:00+09:00")  # 00:00 UTC
    make_run(tmp_path / "west", 0.6, seed=1, start="2026-10-24T20:00:00-05:00")  # 01:00 UTC
    make_run(tmp_path / "unknown", 0.9, seed=1, start=None)
    make_run(tmp_path / "damaged", 0.9, seed=1, start="yesterday")
    assert standings(runs_in(tmp_path))[0].rows[0].scores == {0: 0.4, 1: 0.6}


def test_one_lucky_seed_is_not_first_and_lost_seeds_are_told(tmp_path: Path) -> None:
    """Of kaiming four seeds of five failed, of xavier two; what xavier has left is compared with the same seeds of normal."""
    for seed in range(5):
        make_run(tmp_path / f"n{seed}", 0.30 + 0.01 * seed, seed=seed)
        make_run(tmp_path / f"k{seed}", 0.9, seed=seed, init="kaiming", status="failed" if seed else "finished")
        failed = "failed" if seed in (1, 4) else "finished"
        make_run(
            tmp_path / f"x{seed}", 0.20 + 0.02 * seed, seed=seed, init="xavier", status=failed, error="OutOfMemoryError: 2 GiB"
        )
    make_run(tmp_path / "o", 0.1, init="orthogonal", status="failed", error="its process was killed")
    make_run(tmp_path / "again", 0.1, seed=0, start="2020-01-01", status="interrupted")  # made good later
    (table,) = standings(runs_in(tmp_path))
    assert [(row.label, row.seeds) for row in table.rows] == [
        ("init=normal", "5"),
        ("init=xavier", "3 of 5 trained"),
        ("init=kaiming", "1 of 5 trained"),
        ("init=orthogonal", "0 of 1 trained"),
    ]
    assert table.rows[1].lost == "2 of 5 failed: OutOfMemoryError"
    assert table.rows[3].lost == "1 of 1 failed: its process was killed"
    make_run(tmp_path / "other", 0.5, seed=9, protocol_fingerprint="ffffffff")  # whose score is in another table
    assert [row.seeds for table in standings(runs_in(tmp_path)) for row in table.rows] == [
        "5",
        "3 of 5 trained",
        "1 of 5 trained",
        "0 of 1 trained",
        "1",
    ]
    xavier, kaiming, _ = table.claims
    assert xavier.p == pytest.approx(stats.ttest_rel([0.30, 0.32, 0.33], [0.20, 0.24, 0.26])[1])
    assert kaiming.p is None


def test_a_damaged_run_is_told_and_left_out(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.3)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{")
    runs, (problem,) = read_runs(tmp_path)
    assert [run.folder.name for run in runs] == ["a"]
    assert "b/run.json" in problem


def test_the_best_runs_are_chosen(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep")
    assert [folder.name.partition("_")[0] for folder in choose_runs(f"{sweep}:top3")] == ["10", "11", "9"]
    assert choose_runs(str(sweep / "0_channels-4_init-normal_seed-0")) == [sweep / "0_channels-4_init-normal_seed-0"]
    for wrong, why in (
        (str(tmp_path), "no run.json"),
        (f"{tmp_path / 'nowhere'}:top3", "no such folder"),
        (f"{sweep}:top0", "top0 is none"),
    ):
        with pytest.raises(ValueError, match=why):
            choose_runs(wrong)
