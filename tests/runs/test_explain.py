"""`python -m src.runs explain KEY`: against conf/ as it stands, and what the checks themselves refuse."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from src.composing import compose_checked
from src.errors import ConfigError
from src.runs import __main__ as runs
from src.runs import explain
from src.runs.explain import explain as explained

CONF = ROOT / "conf"


@pytest.fixture(scope="module", autouse=True)
def _composed_once() -> Iterator[None]:
    """Many keys are asked for with the same words, and Hydra takes its time."""
    known: dict[tuple[str, ...], Any] = {}

    def compose(name: str, words: list[str]) -> Any:
        if tuple(words) not in known:
            known[tuple(words)] = compose_checked(name, words)
        return copy.deepcopy(known[tuple(words)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "compose_checked", compose)
        yield


def lines_of(key: str, *words: str, run: Path | None = None) -> dict[str, str]:
    """By the word that each line begins with; of several alike, the first."""
    first, *others = explained(key, list(words), run).splitlines()
    found = {"value": first.partition(" = ")[2]}
    for line in others:
        found.setdefault(line[2:10].strip(), line[11:])
    return found


def test_a_key_of_the_configuration() -> None:
    value = yaml.safe_load((CONF / "config.yaml").read_text())["training"]["checkpoint_seconds"]
    assert lines_of("training.checkpoint_seconds") == {
        "value": f"{value}.0",
        "type": "float | None",
        "allowed": "numbers from 0 to 1e+09",
        "meaning": "seconds between saves within an epoch; null: after epochs alone",
        "set by": f"conf/config.yaml: {value}",
    }
    assert lines_of("training.epochs")["allowed"] == "whole numbers from 1 to 1000000"
    assert lines_of("precision")["allowed"] == "auto, fp32, bf16, fp16"
    assert lines_of("deterministic")["allowed"] == "true, false"
    assert lines_of("training")["type"] == "keys"
    assert lines_of("training")["meaning"] == "How long to train, and what is written meanwhile."


def test_what_is_said_to_be_allowed_is_what_a_bad_value_is_told() -> None:
    with pytest.raises(ConfigError) as refused:
        explained("seed", ["monitor.mode=median"])
    assert lines_of("monitor.mode")["allowed"] == str(refused.value).partition("allowed are ")[2]


def test_an_argument_of_a_group_and_an_override() -> None:
    found = lines_of("optimizer.lr", "experiment=original", "optimizer.lr=0.2")
    assert found["value"] == "0.2"
    assert found["type"] == "argument of torch.optim.sgd.SGD"
    assert found["allowed"].startswith("float")
    assert found["meaning"].startswith("learning rate")
    assert found["set by"] == "the command line: optimizer.lr=0.2"
    assert found["before"] == "conf/optimizer/sgd_original.yaml: 0.1"
    init = lines_of("model.init")
    assert init["allowed"] == "normal or xavier or kaiming or orthogonal or default"
    assert init["set by"] == "conf/model/attunet.yaml: kaiming"
    assert "1411.4734" in lines_of("loss.class_weights")["meaning"]  # of the class's docstring
    assert lines_of("scheduler.T_max", "scheduler=cosine")["set by"] == "conf/scheduler/cosine.yaml: ${training.epochs}"


def test_a_group() -> None:
    options = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
    found = lines_of("model", "experiment=quickstart")
    assert found["value"] == "attunet_small"
    assert found["allowed"] == ", ".join(options)
    assert found["meaning"].startswith("Attention U-Net sized for two CPU cores")
    assert found["set by"] == "conf/experiment/quickstart.yaml: attunet_small"
    assert found["before"] == "conf/config.yaml: attunet"
    assert lines_of("model", "model=unet")["set by"] == "the command line: model=unet"
    assert lines_of("experiment")["value"] == "null"


def test_an_overlay() -> None:
    found = lines_of("training.epochs", "experiment=quickstart")
    assert (found["value"], found["set by"]) == ("14", "conf/experiment/quickstart.yaml: 14")
    assert found["before"] == "conf/config.yaml: 50"
    assert lines_of("optimizer.momentum", "study=inits_at_own_rate")["set by"] == "conf/study/inits_at_own_rate.yaml: 0.9"


def test_what_a_sweep_gives_a_key() -> None:
    study = yaml.safe_load((CONF / "study" / "channels_by_init_small.yaml").read_text())["study"]
    inits = ", ".join(study["crossed"]["model.init"])
    assert lines_of("model.init", "study=channels_by_init_small")["swept"] == f"by the study: {inits}"
    assert lines_of("seed", "study=channels_by_init_small")["swept"] == f"by the study: {', '.join(map(str, study['seeds']))}"
    assert lines_of("model.init", "study=channels_by_init_small", "model.init=normal,xavier")["swept"] == (
        "by the command line: normal, xavier"
    )
    assert "swept" not in lines_of("model.init", "study=channels_by_init_small", "model.init=kaiming")
    assert lines_of("optimizer.foreach", "+optimizer.foreach=true,false")["swept"] == "by the command line: True, False"
    with pytest.raises(ConfigError, match=r"did you mean optimizer\.lr"):
        explained("optimizer.lr", ["optimizer.lrr=0.1,0.2"])
    assert "swept" not in lines_of("optimizer.lr", "study=channels_by_init_small", "model.init=normal,xavier")


def test_a_key_of_a_sweep() -> None:
    found = lines_of("study.on_error", "study.on_error=stop")
    assert (found["value"], found["allowed"]) == ("stop", "continue, stop")
    assert found["meaning"] == "stop: no more jobs are begun once one has failed"
    assert lines_of("study.again")["allowed"] == "true, false"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("optimizer.lrr", "optimizer.lrr: no such key, did you mean optimizer.lr?"),
        ("modle", "modle: no such key, did you mean model?"),
        ("lr", "lr: no such key, did you mean optimizer.lr?"),
        ("training.epochs.x", "training.epochs.x: "),
        ("a b", "a b=null: "),
    ],
)
def test_an_unknown_key(key: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explained(key, [])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_stored_run(tmp_path: Path) -> None:
    facts = {
        "overrides": ["optimizer.lr=0.2", "hydra.run.dir='x'"],
        "config": {"optimizer": {"lr": 0.2, "momentum": 0.5}, "training": {"epochs": 50}},
    }
    (tmp_path / "run.json").write_text(json.dumps(facts))
    found = lines_of("optimizer.lr", run=tmp_path)
    assert (found["value"], found["set by"]) == ("0.2", "the command line: optimizer.lr=0.2")
    assert (
        explained("optimizer.momentum", [], tmp_path).splitlines()[-1] == f"  in {tmp_path}  0.5: conf/ gives another value today"
    )
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text("# @package _global_\nstudy:\n  seeds: [1]\nthreads: 3\n")
    facts["overrides"] = ["study=mine", f"hydra.searchpath=['{tmp_path}']", "hydra.run.dir='x'"]
    (tmp_path / "run.json").write_text(json.dumps(facts))
    assert lines_of("threads", run=tmp_path)["value"] == "3"
    with pytest.raises(ConfigError, match=r"no run\.json there"):
        explain.main(["seed", f"run={tmp_path / 'nowhere'}"])


def test_secrets_and_the_terminal_are_safe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["runs", "explain", "name", "name='\x1b[31mred'"])
    runs.main()
    said = capsys.readouterr().out
    assert "red" in said
    assert "\x1b" not in said
    explain.main(["seed", "-m", "seed=0,1"])
    assert "swept    by the command line: 0, 1" in capsys.readouterr().out
    explain.main(["dataset.root", "dataset.root='https://user:hunter2@host/x'"])
    said = capsys.readouterr().out
    assert "hunter2" not in said
    assert "***" in said
    assert "hunter" not in explained("model.password", ["+model.password=hunter2,hunter3"])
    lines = explained("model.password", ["+model.password=abc"]).splitlines()
    assert (lines[0], lines[-1]) == ("model.password = '***'", "  set by   the command line: +model.password=***")
    assert explained("model.token_dim", ["+model.token_dim=16"]).startswith("model.token_dim = 16\n")
    for words in ([], ["seed", "name"], ["seed", "run=x", "seed=1"]):
        with pytest.raises(ConfigError, match="explain takes one key"):
            explain.main(words)


@pytest.mark.slow  # a process of its own, timed import by import
def test_a_key_of_the_configuration_needs_no_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "src.runs", "explain", "training.epochs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.match(r"training\.epochs = \d+\n", done.stdout)
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "src" in modules
    assert not modules & {"torch", "albumentations", "cv2"}
