"""Two processes that train as one, started by torchrun as a person would start them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from src.build import build
from src.cli import prepare
from src.errors import ConfigError
from src.loop import evaluate

MEASURED = ("time/", "speed/", "memory/")
WORDS = ["loader.batch_size=4", "training.epochs=3", "training.panel_every=100", "optimizer=adamw", "scheduler=constant"]
POISONED = """
import os, sys
import torch
from torch import nn
import src.build

build = src.build.build

def build_poisoned(config):
    experiment = build(config)
    first = next(experiment.state.model.parameters())
    calls = []

    def poison(gradient):
        calls.append(1)
        if os.environ["RANK"] == "1" and len(calls) == 2:
            return gradient * float("nan")

    first.register_hook(poison)
    return experiment

src.build.build = build_poisoned
sys.argv[0] = "src/train.py"
from src.train import main
main()
"""

PARTED = """
import os, sys
import src.clock

scores, sign, epochs = src.clock.Clock.scores, 1 - 2 * int(os.environ["RANK"]), []

def parted(self):
    epochs.append(1)
    return scores(self) | {"speed/images_per_second": 100.0 + sign * len(epochs)}

src.clock.Clock.scores = parted
sys.argv[0] = "src/train.py"
from src.train import main
main()
"""

IN_FP64 = """
import sys
from torch import nn
import src.build, src.device

build_model, normalize = src.build.build_model, src.device.Normalize.__call__

def build_without_batchnorm(config, num_classes):
    model = build_model(config, num_classes)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return model.double()

src.build.build_model = build_without_batchnorm
src.device.Normalize.__call__ = lambda self, images: normalize(self, images).double()
sys.argv[0] = "src/train.py"
from src.train import main
main()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `torchrun -m src.train WORDS`, or another program of the given text, on two ranks."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, ranks: int = 2, program: str | None = None) -> subprocess.Popen[str]:
        what = ["-m", "src.train"]
        if program is not None:
            (tmp_path / "program.py").write_text(program)
            what = ["program.py"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *what, *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for pid in [*ranks_of(process), process.pid]:
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def the_run(home: Path) -> Path:
    (file,) = home.glob("outputs/*/*/run.json")
    return file.parent


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process numbers of the ranks, in their order."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes() for pid in listed}
    numbered = {int(found[1]): pid for pid, e in environments.items() if (found := re.search(rb"\0RANK=(\d+)\0", b"\0" + e))}
    return [numbered[rank] for rank in sorted(numbered)]


def wait_for(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdout is not None
    said = ""
    while line not in said:
        read = process.stdout.readline()
        assert read, said
        said += read
    return said


def test_two_ranks_are_one_run_and_score_as_one_process(start: Start, tiny_overrides: list[str], tmp_path: Path) -> None:
    """The validation split has five images, so that one rank has three of them; nothing is padded or counted twice."""
    process = start(*tiny_overrides, *WORDS)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    folder = the_run(tmp_path)  # one, however many ranks composed it
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["ranks"], run["epoch"]) == ("finished", 2, 3)
    assert output.count("epoch 1/3") == 1
    scored = rows(folder)
    assert len(scored) == 3

    _, config = prepare("config", [*tiny_overrides, *WORDS])
    alone = build(config)
    alone.state.model.load_state_dict(weights(folder))
    evaluation = evaluate(alone.state.model, alone.setup)
    assert float(scored[-1]["val/loss"]) == pytest.approx(evaluation.loss, rel=1e-6)
    counted = np.diag(evaluation.confusion)[:11].sum() / evaluation.confusion[:11].sum()
    assert float(scored[-1]["val/pixel_accuracy"]) == counted  # counts are whole numbers


LOSSES = {
    "ours": ["loss=cross_entropy"],
    "weighted": ["loss=balanced_cross_entropy"],
    "torch's": ["~loss.class_weights", "loss._target_=torch.nn.CrossEntropyLoss", "+loss.label_smoothing=0.1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_two_ranks_with_other_shares_of_void_learn_what_one_process_learns(
    start: Start, tiny_overrides: list[str], tmp_path: Path, loss: str
) -> None:
    """In fp64, without BatchNorm, whose statistics are those of a rank; the images differ in void from a twelfth to all."""
    for folder, rows_more in (("trainannot", 2), ("valannot", 6)):
        for number, file in enumerate(sorted((tmp_path / "tiny data" / folder).iterdir())):
            mask = np.array(Image.open(file))
            mask[: number * rows_more] = 11
            Image.fromarray(mask).save(file)
    words = [*tiny_overrides, *WORDS, *LOSSES[loss], "augmentation=none", "precision=fp32", "optimizer=sgd", "optimizer.lr=0.05"]
    words += ["loader.batch_size=5", "loader.drop_last=false", "model.init=kaiming", "training.epochs=2"]
    for ranks in (2, 1):
        process = start(*words, f"name={ranks}", ranks=ranks, program=IN_FP64)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    (two,), (one,) = ((tmp_path / "outputs" / name).iterdir() for name in "21")
    learnt, expected = weights(two), weights(one)
    for name, value in expected.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(learnt[name], value, rtol=1e-10, atol=1e-12, msg=name)
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        for tag in ("train/loss", "train/gradient_norm", "val/loss"):
            assert float(ours[tag]) == pytest.approx(float(theirs[tag]), rel=1e-11), tag
    losses = [float(row["train/loss"]) for row in rows(one)]
    assert losses[1] < losses[0] - 0.01  # else equal weights would say little


@pytest.mark.slow
def test_ranks_average_what_one_process_computes(start: Start, tiny_overrides: list[str], tmp_path: Path) -> None:
    """Where both halves of a batch are alike, statistics of a half are those of the whole, and so is all that is learnt."""
    for folder in ("train", "trainannot"):
        files = sorted((tmp_path / "tiny data" / folder).iterdir())
        for file in files[1:]:
            file.write_bytes(files[0].read_bytes())
    words = [*tiny_overrides, *WORDS, "precision=fp32"]  # bf16 rounds so coarsely that a pixel of a tie falls the other way
    words += ["augmentation=none", "loader.drop_last=false", "loader.batch_size=10"]
    process = start(*words)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    two = the_run(tmp_path)
    command = [sys.executable, "-m", "src.train", *words, "name=alone"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=240)
    (one,) = (tmp_path / "outputs" / "alone").iterdir()
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        for tag in ("train/loss", "train/gradient_norm", "train/pixel_accuracy"):
            assert float(ours[tag]) == pytest.approx(float(theirs[tag]), rel=2e-3), tag


@pytest.mark.slow
def test_sigterm_to_one_rank_stops_both_at_one_step_and_they_go_on(
    start: Start, tiny_overrides: list[str], tmp_path: Path
) -> None:
    words = [*tiny_overrides, *WORDS, "training.epochs=60"]
    whole = start(*words, "name=whole")
    process = start(*words)
    said = wait_for(process, "epoch 2/")
    os.kill(ranks_of(process)[1], signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert "interrupted and saved" in said + output
    (file,) = (tmp_path / "outputs").glob("[!w]*/*/run.json")
    assert json.loads(file.read_text())["status"] == "interrupted"
    again = start(*words, "training.resume=auto")
    said = wait_for(again, "resumed after epoch")
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said + output
    _, _ = whole.communicate(timeout=240)
    (expected,) = (tmp_path / "outputs" / "whole").iterdir()
    assert rows(file.parent) == rows(expected)
    left, right = weights(file.parent), weights(expected)
    assert all(torch.equal(left[key], right[key]) for key in right)


@pytest.mark.slow
def test_one_process_goes_on_with_a_run_of_two_ranks(
    start: Start, train_process: Callable[..., subprocess.CompletedProcess[str]], tiny_overrides: list[str], tmp_path: Path
) -> None:
    words = [*tiny_overrides, *WORDS, "training.epochs=60"]
    process = start(*words)
    wait_for(process, "epoch 2/")
    os.kill(ranks_of(process)[0], signal.SIGTERM)
    process.communicate(timeout=120)
    folder = the_run(tmp_path)
    before = rows(folder)
    done = train_process(*words, "training.resume=auto")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"(resumed after epoch {len(before)}" in done.stdout
    after, run = rows(folder), json.loads((folder / "run.json").read_text())
    assert (run["status"], run["ranks"], [row["epoch"] for row in after]) == ("finished", 1, [str(n) for n in range(1, 61)])
    assert after[: len(before)] == before
    losses = [float(row["train/loss"]) for row in after]
    assert losses[-1] < losses[len(before) - 1]  # it learns on from there


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_killed_rank_ends_the_other_and_leaves_a_checkpoint(start: Start, tiny_overrides: list[str], tmp_path: Path) -> None:
    words = [*tiny_overrides, *WORDS, "training.epochs=500"]
    process = start(*words)
    wait_for(process, "epoch 3/")
    ranks = ranks_of(process)
    os.kill(ranks[1], signal.SIGKILL)
    began = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - began < 60
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks), output
    assert "another rank of this run ended; see what it said" in output
    run = json.loads((the_run(tmp_path) / "run.json").read_text())
    assert (run["status"], run["error"].partition(":")[0]) == ("failed", "RankError")
    again = start(*words, "training.resume=auto")
    wait_for(again, "resumed after epoch")
    wait_for(again, "epoch 5/")


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_gradient_of_one_rank_that_is_no_number_is_met_by_both(
    start: Start, tiny_overrides: list[str], tmp_path: Path, policy: str
) -> None:
    process = start(*tiny_overrides, *WORDS, f"training.on_nonfinite={policy}", program=POISONED)
    output, _ = process.communicate(timeout=240)
    folder = the_run(tmp_path)
    if policy == "stop":
        assert process.returncode != 0
        assert output.count("epoch 1, step 2: the loss or its gradient is not a finite number") >= 1
        assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    else:
        assert process.returncode == 0, output
        assert [row["train/skipped_steps"] for row in rows(folder)] == ["1", "0", "0"]
        assert all(bool(torch.isfinite(value.float()).all()) for value in weights(folder).values())


@pytest.mark.slow
@pytest.mark.parametrize(("way", "epochs"), [("+", 3), ("-", 2)])
def test_ranks_whose_scores_differ_end_together(
    start: Start, tiny_overrides: list[str], tmp_path: Path, way: str, epochs: int
) -> None:
    """Speed rises on one rank and falls on the other; what the first one measures decides when patience ends."""
    words = ["monitor.tag=speed/images_per_second", "training.patience=1"]
    process = start(*tiny_overrides, *WORDS, *words, program=PARTED.replace("100.0 + sign", f"100.0 {way} sign"))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert len(rows(the_run(tmp_path))) == epochs


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_ranks_end_when_torchrun_is_killed(start: Start, tiny_overrides: list[str], tmp_path: Path) -> None:
    process = start(*tiny_overrides, *WORDS, "training.epochs=500")
    wait_for(process, "epoch 2/")
    ranks = ranks_of(process)
    process.kill()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in ranks) and time.monotonic() < end:
        time.sleep(0.1)
    assert [pid for pid in ranks if Path(f"/proc/{pid}").exists()] == []
    assert json.loads((the_run(tmp_path) / "run.json").read_text())["status"] == "interrupted"


def test_what_several_ranks_cannot_do(tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    _, config = prepare("config", [*tiny_overrides, "loader.batch_size=4"])
    with pytest.raises(ConfigError, match="the smallest of its batches has 4 images for 8 ranks"):
        build(config)
    monkeypatch.delenv("WORLD_SIZE")
    _, config = prepare("config", [*tiny_overrides, "training.sync_batchnorm=true"])
    with pytest.raises(ConfigError, match=r"training\.sync_batchnorm=true: torch has it for CUDA alone"):
        build(config)


def test_a_sweep_is_not_for_torchrun(start: Start, tiny_overrides: list[str], tmp_path: Path) -> None:
    process = start("-m", *tiny_overrides, "seed=0,1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "-m: a sweep starts its own processes; run it without torchrun" in output
    assert not (tmp_path / "outputs").exists()
