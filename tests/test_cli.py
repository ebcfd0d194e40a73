"""The command line as a person meets it: real processes, one line for one mistake, nothing left behind."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT

from src.cli import parse_arguments, prepare
from src.errors import ConfigError
from src.run_folder import read_run

CONF = ROOT / "conf"
Process = Callable[..., subprocess.CompletedProcess[str]]
SECONDS_TO_ANSWER = 0.5
PLAIN_HYDRA = f"""
import sys, hydra
sys.argv = ["plain", "--cfg", "job"]
hydra.main(version_base="1.3", config_path={str(CONF)!r}, config_name="config")(lambda config: None)()
"""

# The command, and what the line must say: the key, what was given, what is allowed or exists.
COMPOSITION_MISTAKES = [
    (["--epochs", "1"], ["--epochs", "training.epochs=10", "--help"]),
    (["optimizer.lrr=1"], ["optimizer.lrr", "no such key", "did you mean optimizer.lr?", "momentum"]),
    (["lr=1"], ["lr", "no such key", "did you mean optimizer.lr?"]),
    (["trainig.epochs=3"], ["trainig.epochs", "no such key", "did you mean training.epochs?"]),
    (["training.epoch=3"], ["training.epoch:", "did you mean training.epochs?"]),
    (["sed=3"], ["sed", "did you mean seed?"]),
    (["+optimizer.lrr=1"], ["optimizer.lrr", "did you mean optimizer.lr?"]),
    (["++optimizer.lrr=1"], ["optimizer.lrr", "did you mean optimizer.lr?"]),
    (["+foo=1"], ["foo", "no such key", "training"]),
    (["++training.foo=1"], ["training.foo", "no such key", "epochs"]),
    (["training.epochs=abc"], ["training.epochs=abc", "Integer"]),
    (["training.epochs=2.5"], ["training.epochs=2.5", "Integer"]),
    (["training.epochs=0"], ["training.epochs=0", "whole numbers from 1"]),
    (["loader.drop_last=maybe"], ["loader.drop_last=maybe", "ool"]),
    (["model=nosuch"], ["model=nosuch", "no such option", "attunet", "unet"]),
    (["optimizer=adamv"], ["optimizer=adamv", "did you mean", "adam, adamw, adamw_fast, sgd"]),
    (["experiment=orginal"], ["experiment=orginal", "did you mean original?"]),
    (["precision=bf17"], ["precision=bf17", "auto, fp32, bf16, fp16"]),
    (["device=gpu"], ["device=gpu", "cpu", "cuda"]),
    (["optimizer.lr=0.1,0.2"], ["optimizer.lr=0.1,0.2", "multirun"]),
    (["model.channels=[4,8"], ["model.channels=[4,8", "key=value"]),
    (["optimizer.lr"], ["optimizer.lr", "key=value"]),
    (["study.plan=true"], ["study.plan=true", "add -m"]),
    (["hydra/sweeper=optuna"], ["hydra/sweeper=optuna", "add -m"]),
    (["hydra/launcher=joblib"], ["hydra/launcher=joblib", "add -m"]),
    (["study=channels_by_init"], ["study=channels_by_init:", "add -m"]),
    (["name='../..'"], ["name=", "letters, digits"]),
    (["dataset.root=${no.such.key}"], ["no.such.key"]),
]


def assert_one_error(done: subprocess.CompletedProcess[str], parts: list[str], folder: Path) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in done.stderr
    assert not (folder / "outputs").exists()


# Imports torch once and runs each command, `python -m src.train WORDS`, in a forked process of its own.
RUN_FORKED = """
import json, os, runpy, sys
import src.build
for number, words in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[2]}/{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ["src.train", *words]
        runpy.run_module("src.train", run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """


def run_forked(commands: list[list[str]], work: Path, texts: Path) -> list[subprocess.CompletedProcess[str]]:
    """As `train_process`, but most of a process's seconds, its imports, are paid once for all."""
    texts.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN_FORKED, json.dumps(commands), str(texts)],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    codes = [int(line) for line in done.stdout.split()]
    return [
        subprocess.CompletedProcess(words, code, (texts / f"{n}.out").read_text(), (texts / f"{n}.err").read_text())
        for n, (words, code) in enumerate(zip(commands, codes, strict=True))
    ]


@pytest.mark.parametrize(("words", "parts"), COMPOSITION_MISTAKES, ids=lambda value: " ".join(value)[:30])
def test_a_mistake_is_told_in_one_line(words: list[str], parts: list[str], train_process: Process, tmp_path: Path) -> None:
    assert_one_error(train_process(*words), parts, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_mistakes_that_only_torch_or_the_data_can_tell(tiny_overrides: list[str], tmp_path: Path) -> None:
    mistakes = [
        ([*tiny_overrides, "model.init=nosuch"], ["model.init='nosuch'", "normal", "xavier", "kaiming", "orthogonal"]),
        ([*tiny_overrides, "model.channels=[64]"], ["channels=[64]", "at least two"]),
        ([*tiny_overrides, 'model.channels=["a"]'], ["model.channels=['a']", "int"]),
        ([*tiny_overrides, "optimizer.lr=fast"], ["optimizer.lr='fast'", "float"]),
        ([*tiny_overrides, "+optimizer.decay=1"], ["optimizer.decay", "no such argument", "momentum"]),
        ([*tiny_overrides, "loader.batch_size=99"], ["loader.batch_size=99", "12 images", "loader.drop_last=false"]),
        (["dataset.root=/no/such/folder", "device=cpu"], ["/no/such/folder", "dataset.root=FOLDER", "dataset=streets"]),
    ]
    outcomes = run_forked([words for words, _ in mistakes], tmp_path, tmp_path / "texts")
    for done, (_, parts) in zip(outcomes, mistakes, strict=True):
        assert_one_error(done, parts, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA; the message is about machines without")
def test_cuda_where_there_is_none(tiny_overrides: list[str], tmp_path: Path) -> None:
    (done,) = run_forked([[*tiny_overrides, "device=cuda"]], tmp_path, tmp_path / "texts")
    assert_one_error(done, ["device=cuda", "0 CUDA devices", "device=cpu"], tmp_path)


def test_a_forced_key_of_hydras_counts_as_the_plain_one(monkeypatch: pytest.MonkeyPatch, tiny_overrides: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *tiny_overrides, "++hydra.run.dir='by hand'", "++model.init=normal"])
    launch, config = prepare("config", parse_arguments().overrides)
    assert launch.folder == Path("by hand")
    assert config.model["init"] == "normal"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["-m", "seed=0,1", "hydra.sweep.subdir=${hydra.job.num}_x"],
            "hydra.sweep.subdir=.*: a sweep names its jobs' folders itself",
        ),
        (["hydra.sweep.subdir=x"], "hydra.sweep.subdir=x: a sweep names"),
        (
            ["-m", "seed=0,1", "++hydra.run.dir=x"],
            "hydra.run.dir=x: -m goes with hydra.sweep.dir, a single run with hydra.run.dir",
        ),
        (["hydra.sweep.dir=x"], "hydra.sweep.dir=x: -m goes with hydra.sweep.dir"),
    ],
)
def test_a_key_that_would_place_no_folder_is_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(ConfigError, match=f"^{message}"):
        parse_arguments()


def test_cfg_prints_the_configuration_and_makes_nothing(train_process: Process, tmp_path: Path) -> None:
    done = train_process("--cfg", "job", "experiment=original", "training.epochs=7")
    assert done.returncode == 0
    assert done.stderr == ""
    printed = yaml.safe_load(done.stdout)
    assert printed["training"]["epochs"] == 7
    assert printed["loader"]["batch_size"] == 32
    assert printed["dataset"]["root"] == "${oc.env:CAMVID_ROOT,data/camvid}"
    assert "hydra" not in printed
    resolved = yaml.safe_load(train_process("--cfg", "job", "--resolve", "scheduler=cosine", "name=a b").stdout)
    assert resolved["scheduler"]["T_max"] == 50
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_group_option_and_key(flag: str, train_process: Process, tmp_path: Path) -> None:
    done = train_process(flag)
    assert done.returncode == 0
    assert done.stderr == ""
    for folder in CONF.iterdir():
        if folder.is_dir():
            line = next(line for line in done.stdout.splitlines() if line.strip().startswith(f"{folder.name}="))
            assert set(re.findall(r"[\w-]+", line)) == {folder.name, *(file.stem for file in folder.glob("*.yaml"))}
    primary = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    for section, value in primary.items():
        if section not in ("defaults", "hydra"):
            assert re.search(rf"\b{section}:", done.stdout)
            assert all(re.search(rf"\b{key}:", done.stdout) for key in (value if isinstance(value, dict) else ()))
    assert "python -m src.train" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("words", [["--cfg", "job"], ["--help"], ["optimizer.lrr=1"], ["+optimizer.lrr=1"]], ids=" ".join)
def test_answers_come_within_half_a_second(words: list[str], train_process: Process) -> None:
    """By the clock or the processor's own count, the best of up to five; on a slow processor as soon as a plain Hydra program."""
    taken, plain = [], []
    for _ in range(5):
        taken.append(seconds_of(lambda: train_process(*words)))
        if taken[-1] < SECONDS_TO_ANSWER:
            return
        plain.append(seconds_of(lambda: subprocess.run([sys.executable, "-c", PLAIN_HYDRA], check=True, capture_output=True)))
    if min(taken) < 1.25 * min(plain):
        return
    pytest.fail(f"at best {min(taken):.2f} s, a plain Hydra program {min(plain):.2f} s")


def seconds_of(run: Callable[[], object]) -> float:
    """By the clock, or of the processor, since the cores are shared with others."""
    used, start = os.times(), time.perf_counter()
    run()
    wall, now = time.perf_counter() - start, os.times()
    return min(wall, now.children_user + now.children_system - used.children_user - used.children_system)


@pytest.mark.parametrize(
    "words", [["--cfg", "job"], ["--help"], ["+optimizer.lrr=1"], ["training.epochs=0"], ["model=nosuch"]], ids=" ".join
)
def test_answers_come_without_torch(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "src.train", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "src.help" in modules, "the list of imports was not read rightly"
    assert {name.partition(".")[0] for name in modules} & {"torch", "numpy", "albumentations", "cv2", "matplotlib"} == set()


@pytest.mark.slow
def test_a_run_stays_in_its_folder(train_process: Process, tiny_overrides: list[str], tmp_path: Path) -> None:
    tiny_overrides = [*tiny_overrides, "training.epochs=1"]
    work = tmp_path / "deep" / "er"
    work.mkdir(parents=True)
    outside = {path for path in tmp_path.rglob("*") if path != work}
    by_hand = "by hand/the run"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [[*tiny_overrides, "name=../../x"], [*tiny_overrides, f"hydra.run.dir='{by_hand}'"]]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "src.train", *words],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in commands
    ]
    for process in running:
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        assert stderr == ""
        assert "tensorboard --logdir" in stdout

    assert {path for path in tmp_path.rglob("*") if work not in (path, *path.parents)} == outside
    assert sorted(path.name for path in work.iterdir()) == ["by hand", "data", "outputs"]
    assert [path.name for path in (work / "data").iterdir()] == ["cache"]
    assert [path.name for path in (work / "outputs").iterdir()] == ["x"]
    (run,) = (work / "outputs" / "x").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}", run.name)
    assert run.name.endswith(read_run(run)["short_id"])
    for folder in (run, work / by_hand):
        assert read_run(folder)["status"] == "finished"
        assert {"config.yaml", "run.json", "metrics.csv", "metrics.jsonl", "tensorboard", "checkpoints", "train.log"} <= {
            path.name for path in folder.iterdir()
        }
    assert {path.name for path in work.rglob("*.log")} == {"train.log"}
    assert len(list(work.rglob("*.log"))) == 2
    assert not list(work.rglob(".hydra"))
    assert not list(work.rglob("multirun.yaml"))
    assert read_run(run)["short_id"] == read_run(work / by_hand)["short_id"]  # neither name nor folder changes the result
