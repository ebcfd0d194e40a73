"""Sweeps in real processes: folders, isolation, secrets, launchers."""

import contextlib
import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, write_split
from test_cli import PLAIN_HYDRA, seconds_of

from src.run_folder import claim_folder

STAMP = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}"
TINY = [
    *("dataset.image_size=null", "model.channels=[4,8]", "training.epochs=1", "loader.batch_size=4", "device=cpu", "threads=1"),
    *("training.panel_images=2", "precision=fp32"),
]


def without(key: str, words: list[str] = TINY) -> list[str]:
    """Where the sweep itself gives this key."""
    return [word for word in words if not word.startswith(f"{key}=")]


SWEPT = without("training.epochs")
CONTRACT = {"config.yaml", "run.json", "metrics.csv", "metrics.jsonl", "tensorboard", "checkpoints", "figures", "train.log"}
PASSWORD = "hunter2-of-the-address"
TOKEN = "s3cr3t-of-the-environment"
LONG = 300  # seconds that a step may take on a busy machine


def start(folder: Path, *words: str, module: str = "src.train", **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_data(root: Path) -> None:
    write_split(root, "train", 8, (16, 16))
    write_split(root, "val", 3, (16, 16))


def run_json(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def jobs_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def rows(job: Path) -> list[tuple[str, str, str]]:
    with (job / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [(row["train/loss"], row["val/loss"], row["val/miou"]) for row in csv.DictReader(file)]


@contextlib.contextmanager
def ended(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever happens, none of them outlives the test; their jobs end with them."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[int, str, str]]]:
    """Two sweeps that ran side by side: `plain`, four jobs, and `joblib`, two jobs at once in a folder given by hand.

    The data of the one lie where an environment variable with a token says, of the other at an address with a password.
    """
    work = tmp_path_factory.mktemp("sweeps")
    write_data(work / TOKEN)
    write_data(work / "https:" / f"user:{PASSWORD}@host" / "a")
    write_data(work / "https:" / f"user:{PASSWORD}@host" / "b")
    address = f"https://user:{PASSWORD}@host"
    processes = {
        "plain": start(
            work,
            *("-m", *without("model.channels"), "dataset.root=${oc.env:DATA_TOKEN}"),
            *("model.channels=[4,8],[4,8,16]", "model.init=normal,kaiming"),
            DATA_TOKEN=TOKEN,
        ),
        "joblib": start(
            work,
            *(
                "-m",
                *TINY,
                "model.init=normal",
                f"dataset.root='{address}/a','{address}/b'",
                "hydra/launcher=joblib",
                "hydra.launcher.n_jobs=2",
            ),
            "hydra.sweep.dir='by hand'",
        ),
    }
    with ended(*processes.values()):
        outcomes = {}
        for name, process in processes.items():
            stdout, stderr = process.communicate(timeout=LONG)
            outcomes[name] = (process.returncode, stdout, stderr)
    return work, outcomes


Finished = tuple[Path, dict[str, tuple[int, str, str]]]


def test_a_sweep_makes_one_run_for_each_combination(finished: Finished) -> None:
    work, outcomes = finished
    code, stdout, stderr = outcomes["plain"]
    assert code == 0, stderr
    (name,) = (work / "outputs" / "multirun").iterdir()
    assert name.name == "attunet_camvid"
    (sweep,) = name.iterdir()
    assert re.fullmatch(STAMP, sweep.name)
    jobs = jobs_of(sweep)
    assert [job.name for job in jobs] == [
        "0_channels-4-8_init-normal",
        "1_channels-4-8_init-kaiming",
        "2_channels-4-8-16_init-normal",
        "3_channels-4-8-16_init-kaiming",
    ]
    for job, channels, init in zip(jobs, ([4, 8], [4, 8], [4, 8, 16], [4, 8, 16]), ["normal", "kaiming"] * 2, strict=True):
        assert {path.name for path in job.iterdir()} >= CONTRACT
        assert (job / "checkpoints" / "last.pt").is_file()
        facts = run_json(job)
        assert facts["status"] == "finished"
        assert (facts["config"]["model"]["channels"], facts["config"]["model"]["init"]) == (channels, init)
        ((_, _, miou),) = rows(job)
        line = next(line for line in stdout.splitlines() if line.split()[:1] == [job.name])
        assert float(line.split()[1]) == pytest.approx(float(miou), abs=1e-4)
        assert re.search(rf"job \d finished: {job.name}: {float(miou):.4f}; \d of 4 done", stdout)
    assert len({run_json(job)["short_id"] for job in jobs}) == 4
    planned = [line for line in stdout.partition("\njob 0: ")[0].splitlines() if " GMACs " in line]
    assert [line.split()[-1] for line in planned] == [job.name for job in jobs]
    for line, job in zip(planned, jobs, strict=True):
        assert int(line.split()[0].replace(",", "")) == run_json(job)["parameters"]
    assert re.findall(r"(\d of 4 done)(?:, about \d+ s left)?:?$", stdout, re.MULTILINE)[-1] == "4 of 4 done"


def test_joblib_gives_the_same_scores_in_the_folder_given(finished: Finished) -> None:
    work, outcomes = finished
    code, _, stderr = outcomes["joblib"]
    assert code == 0, stderr
    jobs = jobs_of(work / "by hand")
    assert [job.name.partition("_")[0] for job in jobs] == ["0", "1"]
    (alone,) = (work / "outputs").glob("multirun/*/*/0_*")
    assert len(rows(alone)) == 1
    for job in jobs:
        assert run_json(job)["status"] == "finished"
        assert rows(job) == rows(alone)  # the same data and seed, to the last digit
    assert len(list((work / "outputs" / "multirun").rglob("run.json"))) == 4  # none of the joblib sweep's


def test_no_secret_is_left(finished: Finished) -> None:
    work, outcomes = finished
    texts = {f"{name}'s console": stdout + stderr for name, (_, stdout, stderr) in outcomes.items()}
    files = [path for folder in ("outputs", "by hand") for path in (work / folder).rglob("*")]
    assert len(files) > 60
    for path in files:
        relative = str(path.relative_to(work))
        texts[f"the name {relative}"] = relative
        if path.is_file():
            texts[relative] = path.read_bytes().decode("latin-1")
    assert any("***" in text for text in texts.values()), "nothing was redacted: were the secrets given?"
    leaks = sorted(name for name, text in texts.items() for secret in (PASSWORD, TOKEN) if secret in text)
    assert leaks == []


def test_nothing_of_hydras_own_is_left(finished: Finished) -> None:
    work, _ = finished
    assert not list(work.rglob(".hydra"))
    assert not list(work.rglob("multirun.yaml"))
    logs = list(work.rglob("*.log"))
    assert len(logs) == 6
    assert {path.name for path in logs} == {"train.log"}
    assert sorted(path.name for path in work.iterdir()) == ["by hand", "data", "https:", "outputs", TOKEN]


@pytest.mark.slow
def test_an_impossible_point_is_refused_before_the_first_job(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    common = ["-m", *TINY, "dataset.root=data"]
    sweeps = [
        ([*without("model.channels", common), "model.channels=[4,8],[64]"], "channels=[64]"),
        ([*common, "seed=0,1", "model.init=normal,nosuch"], "model.init='nosuch'"),
        ([*common, "optimizer.momentum=0.9,much"], "optimizer.momentum='much'"),
    ]

    def refuse(words: list[str]) -> tuple[int, str, str]:
        process = start(tmp_path, *words)
        with ended(process):
            stdout, stderr = process.communicate(timeout=LONG)
        return process.returncode, stdout, stderr

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(lambda sweep: refuse(sweep[0]), sweeps))
    for (code, stdout, stderr), (_, given) in zip(outcomes, sweeps, strict=True):
        assert code == 1
        assert stdout == ""
        (line,) = stderr.splitlines()
        assert line.startswith("error: ")
        assert given in line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert not (tmp_path / "data" / "cache").exists()


def test_one_bad_point_of_twelve_is_told_within_three_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start(tmp_path, "-m", *SWEPT, "training.epochs=1,2,3,4,5,6,7,8,9,10,11,many")  # the last one: all are composed
    with ended(process):
        stdout, stderr = process.communicate(timeout=LONG)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the processor: other tests share the machine
    plain = seconds_of(lambda: subprocess.run([sys.executable, "-c", PLAIN_HYDRA], check=True, capture_output=True))
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < max(3.0, 6 * plain)  # on a slow processor
    assert (process.returncode, stdout) == (1, "")
    (line,) = stderr.splitlines()
    assert "training.epochs" in line
    assert "many" in line
    assert list(tmp_path.iterdir()) == []


def test_a_typo_in_a_sweep_is_refused_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "optimizer.lrr=1,2", "+x.api_token=s3cr3t")
    with ended(process):
        stdout, stderr = process.communicate(timeout=LONG)
    assert (process.returncode, stdout) == (1, "")
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("error: ")
    assert "s3cr3t" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_two_claims_in_one_second_get_two_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as threads:
        folders = list(threads.map(lambda _: claim_folder(tmp_path / "x", "0123abcd"), range(3)))
    assert len(set(folders)) == 3
    assert all(re.fullmatch(STAMP, folder.name) and folder.is_dir() for folder in folders)


@pytest.mark.slow
def test_a_killed_job_and_a_killed_parent(tmp_path: Path) -> None:
    """Two equal sweeps start together. In one the job is killed, in the other the parent."""
    write_data(tmp_path / "data")
    words = [
        "-m",
        *SWEPT,
        "dataset.root=data",
        "training.epochs=100000,1",
        "training.panel_every=200000",
        "training.log_every=1000",
    ]
    parents = [start(tmp_path, *words) for _ in range(2)]
    with ended(*parents):
        homes = tmp_path / "outputs" / "multirun" / "attunet_camvid"
        wait_for(lambda: homes.is_dir() and len(list(homes.iterdir())) == 2, LONG, "two sweeps, two folders")
        first = [
            wait_for(
                lambda home=home: next((job for job in home.glob("0_*") if run_json(job).get("epoch")), None),
                LONG,
                f"{home} trains",
            )
            for home in sorted(homes.iterdir())
        ]
        children = [run_json(job)["process"] for job in first]
        owners = [int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1]) for child in children]
        assert set(owners) == {parent.pid for parent in parents}, "each job is a child of its sweep"

        killed = next(parent for parent in parents if parent.pid == owners[0])
        killed.kill()
        wait_for(lambda: run_json(first[0])["status"] != "running", 30, "the job ends with its parent")
        assert run_json(first[0])["status"] == "interrupted"
        wait_for(lambda: not Path(f"/proc/{children[0]}").exists() or _is_zombie(children[0]), 30, "its process is gone")
        assert len(jobs_of(first[0].parent)) == 1  # the second job never started

        other = next(parent for parent in parents if parent.pid == owners[1])
        os.kill(children[1], signal.SIGKILL)
        assert other.stderr is not None
        line = other.stderr.readline()  # at once: the other job has not ended yet
        assert "job 0 failed" in line
        assert first[1].name in line
        assert "SIGKILL" in line
        facts = run_json(first[1])
        assert facts["status"] == "failed"
        assert "SIGKILL" in facts["error"]
        stdout, _ = other.communicate(timeout=LONG)
        assert other.returncode == 1
        (second,) = first[1].parent.glob("1_*")
        assert run_json(second)["status"] == "finished"
        assert re.search(rf"{re.escape(first[1].name)} +failed", stdout)
        assert re.search(rf"{re.escape(second.name)} +\d\.\d+", stdout)
        page = (second.parent / "report.html").read_text()
        assert "1 failed" in page
        assert "1 finished" in page


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
