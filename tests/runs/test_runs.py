"""`python -m src.runs`: list, compare, diff."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from made_runs import SCORES, make_run, make_sweep
from scipy import stats

from src.runs import compare, diff, listing
from src.runs.listing import frame
from src.studies.reading import read_runs


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return make_sweep(tmp_path / "outputs" / "multirun" / "made" / "sweep")


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, str]]:
    listing.main([*words, "format=csv"])
    return [*csv.DictReader(io.StringIO(capsys.readouterr().out))]


def test_a_sweep_goes_by_its_name_too(sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep.parents[3])
    make_run(Path("outputs") / "alone", 0.9)
    assert len(listed(capsys, "made")) == 12
    assert len(listed(capsys)) == 13


def test_rows_are_compared_among_those_that_fit(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([str(sweep), "model.channels=[4,8]"])
    said = capsys.readouterr().out
    assert said.splitlines()[0] == f"runs in {sweep} with model.channels=[4,8]"
    expected = stats.ttest_rel(SCORES["kaiming", 4], SCORES["normal", 4])[1]
    assert re.search(r"init=kaiming beats init=normal by 7\.0 points", said)
    assert expected < 0.05
    assert "Holm" not in said  # of two rows there is one pair


def test_filters_and_sorting(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, str(sweep), "model.init=kaiming", "score>0.37", "sort=score")
    assert [row["score"] for row in rows] == ["0.42", "0.41", "0.4", "0.385"]
    assert len(listed(capsys, str(sweep), "model.channels=[4,8]", "seed!=0")) == 4
    assert len(listed(capsys, str(sweep), "status=finished", "parameters<=4000")) == 6
    make_run(sweep / "exact", 0.1, config={"deterministic": True, "seed": 7})
    make_run(sweep / "fast", 0.1, config={"deterministic": False, "seed": 8})
    for words, seeds in ((["=true"], ["7"]), (["!=true"], ["8"]), (["=False"], ["8"])):
        rows = listed(capsys, str(sweep), "seed>=7", *(f"deterministic{word}" for word in words))
        assert [row["seed"] for row in rows] == seeds, words
    for name in ("exact", "fast"):
        shutil.rmtree(sweep / name)
    rising = listed(capsys, str(sweep), "sort=seed")
    assert [row["seed"] for row in rising] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    listing.main([str(sweep), "format=json", "seed=2"])
    assert {row["seed"] for row in json.loads(capsys.readouterr().out)} == {2}


def test_scores_of_different_protocols_are_not_sorted_into_one_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loss is best where it is least; the largest group comes first."""
    for seed, score in enumerate((0.3, 0.5, 0.4)):
        make_run(tmp_path / f"a{seed}", score, seed=seed)
    for seed, loss in enumerate((1.5, 0.7)):
        run = make_run(tmp_path / f"b{seed}", loss, seed=seed)
        facts = json.loads((run / "run.json").read_text())
        facts["config"]["monitor"] = {"tag": "val/loss", "mode": "min"}
        (run / "run.json").write_text(json.dumps(facts))
    make_run(tmp_path / "c", 0.99, protocol_fingerprint="ffffffff")
    listing.main([str(tmp_path), "sort=score", "format=csv"])
    shown = capsys.readouterr()
    rows = [*csv.DictReader(io.StringIO(shown.out))]
    assert [(row["score"], row["protocol"]) for row in rows] == [
        ("0.5", "0123abcd"), ("0.4", "0123abcd"), ("0.3", "0123abcd"),
        ("0.7", "0123abcd"), ("1.5", "0123abcd"),
        ("0.99", "ffffffff"),
    ]  # fmt: skip
    assert shown.err == (
        "scored in 3 ways, each sorted by itself: 3 by val/miou (max), protocol 0123abcd;"
        " 2 by val/loss (min), protocol 0123abcd of version 1; 1 by val/miou (max), protocol ffffffff\n"
    )


def test_starts_are_sorted_as_moments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, start in (("summer", "2026-10-25T02:30:00+02:00"), ("winter", "2026-10-25T02:10:00+01:00")):
        make_run(tmp_path / name, 0.3, start=start)
    assert [Path(row["folder"]).name for row in listed(capsys, str(tmp_path), "sort=start")] == ["summer", "winter"]


def test_compare_tells_seeds_that_diverged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        lost = {"status": "failed", "error": "NonFiniteLossError: loss nan"} if seed else {}
        make_run(tmp_path / f"n{seed}", 0.3 + 0.01 * seed, seed=seed)
        make_run(tmp_path / f"k{seed}", 0.9, seed=seed, init="kaiming", **lost)
        make_run(tmp_path / f"x{seed}", 0.9, seed=seed, init="xavier", **lost | {"best_score": None})
    compare.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines if line.strip().startswith("init=") and "  " in line.strip()]
    assert [row[:4] for row in rows] == [
        ["init=normal", "3", "31.0 ± 1.0", "30.0, 31.0, 32.0"],
        ["init=kaiming", "1 of 3 trained", "90.0", "-"],
        ["init=xavier", "0 of 3 trained", "-", "-"],
    ]
    assert "init=kaiming: 2 of 3 seeds diverged." in lines
    assert "init=xavier: 3 of 3 seeds diverged." in lines
    assert any("2 of 3 seeds of init=kaiming diverged, and those that survived" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere"], "no such folder, and no sweep of that name; there are .* filters such as model.init=kaiming"),
        (["more", "finished"], r"finished: give one folder or sweep"),
        (["modle.init=x"], "no run has such a key"),
        (["format=xml"], "allowed are table"),
        (["sort=x"], "sort=x"),
    ],
)
def test_bad_words_are_told(sweep: Path, words: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        listing.main([*([str(sweep)] if words != ["nowhere"] else []), *words])


def test_a_frame_has_a_row_for_each_run(sweep: Path) -> None:
    table = frame(sweep)
    assert len(table) == 12
    assert table.groupby("model.init")["score"].mean()["kaiming"] == pytest.approx(0.39)


def test_a_name_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", 0.3, init="\x1b[31mred[bold]")
    make_run(tmp_path / "b", 0.3)
    listing.main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert "[bold]" in shown.replace("\n", "").replace(" ", "")


def test_compare_ranks_and_says_what_may_be_said(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([str(sweep)])
    said = capsys.readouterr().out
    assert said.index("channels=8-16 init=kaiming") < said.index("channels=4-8 init=normal")
    assert said.startswith(f"runs in {sweep}\n")
    assert "41.0 ± 1.0" in said
    assert "beats channels=4-8 init=kaiming by 4.0 points" in said
    assert "after Holm's correction for 6 comparisons" in said


def test_compare_says_why_there_are_two_tables(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(sweep / "other", 0.99, protocol={"split": "test", "scored_at": [64, 80]}, protocol_fingerprint="ffffffff")
    compare.main([str(sweep)])
    said = capsys.readouterr().out
    assert "2 tables, as runs were not all scored in the same way: split differs" in said
    assert "12 runs scored this way; 1 other was scored differently" in said
    assert "1 run scored this way; 12 others were scored differently" in said


def test_diff_is_a_note_on_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = make_run(tmp_path / "a", 0.30, packages={"torch": "2.12.0", "numpy": "2"})
    b = make_run(tmp_path / "b", 0.35, init="kaiming", packages={"torch": "2.13.0", "numpy": "2"})
    (b / "diff.patch").write_text("+a line of code\n")
    diff.main([str(a), str(b)])
    note = capsys.readouterr().out
    assert "| model.init | normal | kaiming |" in note
    assert "| torch | 2.12.0 | 2.13.0 |" in note
    assert "numpy" not in note
    assert "| best val/miou | 0.3000 | 0.3500 |" in note
    assert "+a line of code" in note
    assert "say nothing about two configurations" in note
    with pytest.raises(ValueError, match=r"no run\.json there"):
        diff.main([str(a), str(tmp_path / "nowhere")])


def test_diff_keeps_scores_of_two_tags_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = make_run(tmp_path / "a", 0.30, final_scores={"val/miou": 0.29, "val/loss": 1.5})
    b = make_run(tmp_path / "b", 0.9, final_scores={"val/miou": 0.31, "val/loss": 1.25})
    facts = json.loads((b / "run.json").read_text())
    facts["config"]["monitor"] = {"tag": "val/loss", "mode": "min"}
    (b / "run.json").write_text(json.dumps(facts))
    diff.main([str(a), str(b)])
    scores = capsys.readouterr().out.partition("## Scores")[2].partition("##")[0]
    assert [line for line in scores.splitlines() if line.startswith("| ")][1:] == [
        "| best by val/miou, max | 0.3000 | - |",
        "| best by val/loss, min | - | 0.9000 |",
        "| val/miou at the last epoch | 0.2900 | 0.3100 |",
        "| val/loss at the last epoch | 1.5000 | 1.2500 |",
    ]
    assert "must not be ranked together" in scores
    facts["config"]["monitor"] = {"tag": "val/miou", "mode": "min"}
    (b / "run.json").write_text(json.dumps(facts))
    diff.main([str(a), str(b)])
    assert "| best by val/miou, min | - | 0.9000 |" in capsys.readouterr().out


def test_compare_of_several_folders_is_the_same_in_any_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newer run of a seed is the one that counts, a folder named twice counts once, and what cannot be read is told."""
    old, new = tmp_path / "b old", tmp_path / "a new"
    for seed in (0, 1):
        make_run(old / f"{seed}_x", 0.3, seed=seed)
        make_run(old / f"{seed}_y", 0.2, seed=seed, init="kaiming")
    make_run(new / "0_x", 0.5, seed=0, start="2026-01-02T00:00:00+00:00")
    (new / "1_x").mkdir()
    (new / "1_x" / "run.json").write_text("{")
    said = []
    for folders in ([old, new], [new, old], [old, new / "0_x", new, old]):
        compare.main([str(folder) for folder in folders])
        shown = capsys.readouterr()
        assert "1_x" in shown.err
        assert "left out" in shown.err
        said.append(shown.out.partition("\n")[2])
    assert said[0] == said[1] == said[2]
    assert "40.0" in said[0]  # of 0.5 and 0.3


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "src.runs", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_columns_that_a_terminal_has_no_room_for_are_counted(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(len(str(sweep)) + 70))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    listing.main([str(sweep)])
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    head = said.splitlines()[0].split()
    assert head[:5] == ["folder", "status", "score", "epoch", "seed"]
    count = re.search(r"(\d+) columns that do not fit here; format=csv has all", said)
    assert count is not None
    assert len(head) + int(count[1]) == 7  # folder, status, score, epoch, seed, channels, init
    assert all(str(run.folder) in said for run in read_runs(sweep)[0])
    monkeypatch.setenv("COLUMNS", "60")  # no room for a folder: it is folded, and the score is still there
    listing.main([str(sweep)])
    assert "score" in capsys.readouterr().out.splitlines()[0]


def test_the_command(tmp_path: Path, sweep: Path) -> None:
    done = command(tmp_path, "list", "score>0.4")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("2 runs")
    assert command(tmp_path, "compare", "made").returncode == 0
    wrong = command(tmp_path, "lst")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert (
        wrong.stderr == "error: lst: no such word; there are list, compare, diff, replay, explain, report, did you mean list?\n"
    )
    assert "compare" in command(tmp_path, "--help").stdout
