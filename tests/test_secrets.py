"""Real runs that were given secrets: finished, failed, and interrupted and resumed, none leaves one anywhere."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, write_split

from src.cli import errors_in_one_line
from src.composing import prepare
from src.errors import ConfigError
from src.studies.sweep import Options, claim_sweep

TOKEN = "t0ken-of-the-environment"
KEY = "k3y-of-the-command-line"
PASSWORD = "hunter2-of-the-address"
SECRETS = (TOKEN, KEY, PASSWORD)
DATASET = "defaults: [camvid]\nroot: ${oc.env:DATA_TOKEN}\ncache: none\n"
SMALL = ["dataset.image_size=null", "model.channels=[4,8]", "loader.batch_size=4", "device=cpu", "threads=1"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Data in a folder whose name is a secret, which the environment tells a data set's YAML."""
    for split, number in (("train", 12), ("val", 5)):
        write_split(tmp_path / TOKEN, split, number, (24, 32))
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "mine.yaml").write_text(DATASET)
    return tmp_path


def start(home: Path, *words: str, flags: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    given = [f"+hydra.job.env_set.API_KEY={KEY}", f"+hydra.job.env_set.PROXY='http://me:{PASSWORD}@host'"]
    command = [sys.executable, "-m", "src.train", *flags, "--config-dir", "conf", "dataset=mine", *SMALL, *given, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DATA_TOKEN": TOKEN}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=home, env=environment, stdout=pipe, stderr=pipe, text=True)


def read_until(process: subprocess.Popen[str], line: str) -> str:
    said = ""
    assert process.stdout
    while line not in said:
        read = process.stdout.readline()
        assert read, said + process.communicate()[1]
        said += read
    return said


def finish(process: subprocess.Popen[str], said: str = "") -> tuple[int, str]:
    stdout, stderr = process.communicate(timeout=200)
    return process.returncode, said + stdout + stderr


def check_no_secret(home: Path, said: str, statuses: list[str]) -> None:
    files = [path for path in (home / "outputs").rglob("*") if path.is_file()]
    assert any("tfevents" in path.name for path in files)
    texts = {"the console": said} | {str(path): str(path) + path.read_bytes().decode("latin-1") for path in files}
    leaks = [(name, secret) for name, text in texts.items() for secret in SECRETS if secret in text]
    assert leaks == []
    runs = [json.loads(path.read_text()) for path in files if path.name == "run.json"]
    assert sorted(run["status"] for run in runs) == statuses
    for run in runs:  # they were given, and hidden
        assert run["config"]["dataset"]["root"] == "***"
        assert "+hydra.job.env_set.API_KEY=***" in run["overrides"]
        assert "http://***@host" in run["command"]


def test_a_finished_run(home: Path) -> None:
    code, said = finish(start(home, "training.epochs=1"))
    assert code == 0, said
    check_no_secret(home, said, ["finished"])
    (events,) = home.glob("outputs/*/*/tensorboard/*")
    assert b"root: '***'" in events.read_bytes()


@pytest.mark.slow
def test_a_run_that_fails(home: Path) -> None:
    process = start(home, "training.epochs=500")
    said = read_until(process, "epoch 1/")
    (home / TOKEN / "train" / "frame_003.png").unlink()
    code, said = finish(process, said)
    assert code == 1
    assert "error: ***/train/frame_003.png: cannot be opened" in said
    (log,) = home.glob("outputs/*/*/train.log")
    assert "Traceback" in log.read_text()
    check_no_secret(home, said, ["failed"])


@pytest.mark.slow
def test_a_run_that_is_interrupted_and_resumed(home: Path) -> None:
    process = start(home, "training.epochs=12")
    said = read_until(process, "epoch 1/")
    process.send_signal(signal.SIGTERM)
    code, said = finish(process, said)
    assert code == 128 + signal.SIGTERM
    check_no_secret(home, said, ["interrupted"])
    code, said = finish(start(home, "training.epochs=12", "training.resume=auto"))
    assert code == 0, said
    assert "resumed after epoch" in said
    check_no_secret(home, said, ["finished"])


@pytest.mark.slow
def test_data_that_are_not_there(home: Path) -> None:
    (home / TOKEN).rename(home / "moved")
    code, said = finish(start(home))
    assert (code, len(said.splitlines())) == (1, 1), said
    assert said.startswith(f"error: {home}/***: no CamVid here")
    code, said = finish(start(home, "seed=0,1", flags=("-m",)))
    assert (code, len(said.splitlines())) == (1, 1), said
    assert not any(secret in said for secret in SECRETS)


@pytest.mark.parametrize("more", [[], ["--resolve"]], ids=str)
def test_what_cfg_prints(more: list[str], home: Path) -> None:
    words = [f"+model.api_key={KEY}", f"+loss.url='ftp://me:{PASSWORD}@host'"]
    code, said = finish(start(home, *words, flags=("--cfg", "job", *more)))
    assert code == 0, said
    assert not any(secret in said for secret in SECRETS)
    assert "***@host" in said


@pytest.mark.parametrize(
    "flags",
    [
        ("--cfg", "all"),
        ("--info", "all"),
        pytest.param(("--cfg", "hydra"), marks=pytest.mark.slow),
        pytest.param(("--cfg", "job", "--package", "loss"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_what_hydra_itself_prints(flags: tuple[str, ...], home: Path) -> None:
    words = [f"+model.api_key={KEY}", f"+loss.url='ftp://me:{PASSWORD}@host'", "+loss.x=${oc.env:DATA_TOKEN}"]
    code, said = finish(start(home, *words, flags=flags))
    assert code == 0, said
    assert not any(secret in said for secret in SECRETS)
    assert "***" in said


def test_a_mistake_of_ours_shows_its_traceback_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", f"+api_key={KEY}"])

    def fail() -> None:
        with errors_in_one_line() as redactor:
            redactor.tree({"token": TOKEN})
            raise RuntimeError(f"{KEY} {TOKEN} http://me:{PASSWORD}@host")

    with pytest.raises(SystemExit) as caught:
        fail()
    said = str(caught.value)
    assert said.startswith("Traceback")
    assert said.endswith("RuntimeError: *** *** http://***@host")
    assert not any(secret in said for secret in SECRETS)


def test_what_a_run_is_made_again_from_is_what_it_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that happen to be parts of others: in every text, they were replaced."""
    monkeypatch.setenv("MODEL_TOKEN", "AttU_Net")
    words = ["+hydra.job.env_set.MODE=${oc.env:MODEL_TOKEN}", "+hydra.job.env_set.API_KEY=true", "+hydra.job.env_set.TOKEN=16"]
    launch, _ = prepare("config", [*words, "model.channels=[16,32]", "loader.drop_last=true"])
    assert yaml.safe_load(launch.config_yaml) == launch.config == launch.stored
    assert yaml.safe_load(launch.written_yaml)["loader"]["drop_last"] is True


@pytest.mark.parametrize("key", ["name", "seed", "training.epochs", "training.checkpoint_seconds"])
@pytest.mark.parametrize("number", ["471108", "4711"])
def test_a_secret_can_name_no_folder_and_be_no_number(key: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_TOKEN", number)
    with pytest.raises(ConfigError, match=f"^{key}: was given a secret") as caught:
        prepare("config", [f"{key}=${{oc.env:X_TOKEN}}"])
    assert number not in str(caught.value)
    prepare("config", [f"{key}={number}"])


@pytest.mark.parametrize(
    "name", ["ghp_abcdefghij0123456789abcdefghij012345", "http://me:hunter2@host", "run hf_abcdefghij0123456789"]
)
def test_a_name_that_is_a_secret_itself(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name: was given a secret"):
        prepare("config", [f"name='{name}'"])


def test_what_a_sweep_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT_TOKEN", "1234")
    question = f"Is it as good as on http://me:{PASSWORD}@host?"
    words = ["study=channels_by_init", f"study.question='{question}'", "dataset.root=${oc.env:ROOT_TOKEN}"]
    words += ["dataset.labels=${oc.env:UNSET_TOKEN,abc-def}", f"+hydra.job.env_set.API_KEY={KEY}"]
    launch, _ = prepare("config", words)
    assert launch.config["study"]["question"] == question
    folder = claim_sweep(tmp_path / "sweep", words, [words], [launch], Options())
    study = json.loads((folder / "study.json").read_text())
    assert study["question"] == "Is it as good as on http://***@host?"
    assert study["words"][2:] == [words[2], "dataset.labels=${oc.env:UNSET_TOKEN,***}", "+hydra.job.env_set.API_KEY=***"]
    assert (study["common"]["dataset.root"], study["common"]["dataset.labels"]) == ("***", "***")
    stored = (folder / "study.json").read_text() + launch.config_yaml + launch.written_yaml
    assert not [secret for secret in (PASSWORD, KEY, "abc-def", "'1234'") if secret in stored]
