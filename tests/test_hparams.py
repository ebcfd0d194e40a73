"""The HPARAMS tab, as TensorBoard's own server tells it to the page."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_recorder import CLASSES, make_record

from src import hparams
from src.composing import prepare
from src.help import CONF
from src.hparams import columns
from src.recorder import Recorder

METRICS = ["best/val/miou", "val/miou", "val/pixel_accuracy", "val/loss"]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Writes a run of some epochs, the first of which was the best, made of these words."""

    def write(name: str, *words: str, finished: int = 0, epochs: int = 2) -> None:
        folder = tmp_path / name
        for part in ("figures", "tensorboard"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        launch, config = prepare("config", list(words))
        recorder = Recorder(folder, CLASSES, 255, finished)
        recorder.write_hparams(launch.config, launch.overrides, config.monitor.tag)
        for epoch in range(finished + 1, epochs + 1):
            record = make_record(epoch)
            record.scores["val/miou"] = 0.5 if epoch == 1 else 0.25
            recorder.write(dataclasses.replace(record, is_best=epoch == 1), config.monitor.tag)
        recorder.close()

    return write


def ask(logdir: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """What TensorBoard's server answers: its columns, and its rows."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "localhost", "--port", "0"]
    command += ["--load_fast=false", "--reload_interval=0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stderr is not None
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+/", line)))
            columns = post(address, "experiment", {"experimentName": ""})
            wanted = {"experimentName": "", "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS"], "sliceSize": 100}
            rows = post(address, "session_groups", wanted | {"colParams": []})
        finally:
            server.terminate()
    return {info["name"]: info for info in columns["hparamInfos"]}, rows["sessionGroups"]


def post(address: str, what: str, content: dict[str, Any]) -> Any:
    body, head = json.dumps(content).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}data/plugin/hparams/{what}", body, head), timeout=60) as answer:
        return json.load(answer)


def test_one_row_a_run_with_the_same_columns(run: Callable[..., None], tmp_path: Path) -> None:
    run("a", "optimizer=sgd", "seed=3", "model=attunet", "training.patience=null")
    run("b", "optimizer=adamw", "seed=4", "model=unet", "training.patience=7", epochs=1)
    run("b", "optimizer=adamw", "seed=4", "model=unet", "training.patience=7", finished=1)  # goes on
    columns, rows = ask(tmp_path)
    assert len(rows) == 2
    assert [[session["name"] for session in row["sessions"]] for row in rows] == [["a/tensorboard"], ["b/tensorboard"]]
    first, second = (row["hparams"] for row in rows)
    assert (first["seed"], second["seed"]) == (3.0, 4.0)
    assert (first["model"], second["model"]) == ("AttU_Net", "UNet")
    assert first["model.channels"] == "64-128-256-512-1024"
    assert (first["training.patience"], second["training.patience"]) == ("null", "7")
    assert first["optimizer.momentum"] == 0.9
    assert "optimizer.momentum" not in second
    assert second["optimizer.betas"] == "0.9-0.999"  # a column, though the first run has none of it
    assert {"optimizer.momentum", "optimizer.betas", "scheduler.T_max", "dataset.num_train"} <= set(columns)
    assert set(first) | set(second) <= set(columns)
    kinds = {name: info["type"] for name, info in columns.items()}
    assert {name: kinds[name] for name in ("seed", "scheduler.T_max", "optimizer.betas", "training.patience")} == {
        "seed": "DATA_TYPE_FLOAT64",
        "scheduler.T_max": "DATA_TYPE_FLOAT64",
        "optimizer.betas": "DATA_TYPE_STRING",
        "training.patience": "DATA_TYPE_STRING",
    }
    assert not [name for name in columns if name.startswith(("name", "loader.num_workers", "dataset.root"))]
    assert list(columns)[:4] == ["model", "optimizer", "seed", "training.patience"]  # what was set comes first
    for row in rows:
        shown = {value["name"]["tag"]: (value["value"], value["trainingStep"]) for value in row["metricValues"]}
        assert list(shown) == METRICS
        assert shown["best/val/miou"] == (0.5, 1)
        assert shown["val/miou"] == (0.25, 2)


def test_an_option_that_nobody_chose_may_be_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    before = columns({"optimizer.own": 1})
    for name, text in (("broken", "a: [1"), ("empty", ""), ("listed", "- 1"), ("inheriting", "defaults: [sgd]")):
        (tmp_path / "conf/optimizer" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(hparams, "CONF", tmp_path / "conf")
    assert columns({"optimizer.own": 1}) == before
    assert before["optimizer.own"]


def test_what_no_result_depends_on_stays_out(run: Callable[..., None], tmp_path: Path) -> None:
    run("a", "name=harmless", "dataset.root=/somewhere/else")
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("events*"))
    assert b"/somewhere/else" not in written
