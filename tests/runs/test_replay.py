"""`python -m src.runs replay`: the same, or different and why."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, write_split

from src.errors import UserError
from src.runs.replay import main

TINY = ("dataset.root=data", "dataset.image_size=null", "model.channels=[4,8]", "training.epochs=2", "loader.batch_size=4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("replay")
    for split, number in (("train", 8), ("val", 3)):
        write_split(work / "data", split, number, (24, 32))
    words = [
        *TINY,
        "device=cpu",
        "threads=1",
        "precision=fp32",
        "training.panel_images=1",
        "hydra.run.dir=run",
        "optimizer=adamw",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "src.train", *words], cwd=work, env=environment, check=True, capture_output=True, timeout=300
    )
    return work


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run beside its data, to be changed at will."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def edit(run: Path, **facts: Any) -> None:
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def replayed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as caught:
        main(["run", *words])
    return caught.value.code, capsys.readouterr().out


def test_an_untouched_run_is_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = replayed(capsys)
    assert code == 0, said
    assert said.splitlines()[-1].startswith("the same: configuration, data and the checkpoint's score")
    assert said.count("the same (") >= 5  # code is another if somebody edits this tree meanwhile
    assert [line.split()[0] for line in said.splitlines()[1:-1]] == [
        *("configuration", "code", "packages", "device", "data", "score")
    ]
    assert not (run / "evaluations").exists()


def test_code_and_packages_are_told_and_decide_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages = json.loads((run / "run.json").read_text())["packages"]
    edit(run, git_commit="0123456789", packages=packages | {"torch": "0.1"}, device="Abacus")
    (run / "diff.patch").write_text("+ something\n")
    code, said = replayed(capsys)
    assert code == 0
    for told in ("commit 01234567, now ", "what was not committed then is in run/diff.patch", "torch 0.1, now ", "device Abacus"):
        assert told in said
    assert "code and packages and device differ, so training it again" in said


def test_a_configuration_that_composes_to_something_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["optimizer"]["weight_decay"] = 0.125
    edit(run, config=facts["config"])
    code, said = replayed(capsys)
    assert code == 1
    assert "optimizer.weight_decay was 0.125, is " in said
    assert said.splitlines()[-1].startswith("different: configuration")
    edit(run, overrides=["model=gone"])
    code, said = replayed(capsys)
    assert code == 1
    assert "do not compose today (model=gone: no such option" in said


def test_another_id_is_a_difference_though_no_key_tells(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run, short_id="00000000")
    code, said = replayed(capsys)
    assert code == 1
    assert "different: id 00000000, now " in said


def test_harmless_keys_and_secrets_are_no_difference(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["training"]["log_every"] = 77
    edit(run, config=facts["config"])
    assert replayed(capsys)[0] == 0


def test_other_data_are_named_with_both_fingerprints(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((run / "run.json").read_text())["data_fingerprint"]
    write_split(run.parent / "data", "val", 3, (24, 32), seed=5)
    code, said = replayed(capsys)
    assert code == 1
    assert f"val {before['val']}, now " in said
    assert f"train {before['train']}" not in said
    assert re.match(r"different: data, score|different: data", said.splitlines()[-1])


def test_a_score_that_was_another(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "metrics.csv"
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    for row in rows:
        row["val/miou"] = str(float(row["val/miou"]) + 2e-6)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, said = replayed(capsys)
    assert code == 1
    assert "different: val/miou 0." in said
    assert said.splitlines()[-1].startswith("different: score")


def test_what_it_is_not_for_is_told(run: Path) -> None:
    for words, why in (
        ([], "replay takes a run's folder"),
        (["run", "split=test"], "split=test: not used here"),
        (["run", "threads=0"], "threads=0"),
        (["nowhere"], "no run.json there"),
    ):
        with pytest.raises(UserError, match=re.escape(why)):
            main(words)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="no such checkpoint"):
        main(["run"])
