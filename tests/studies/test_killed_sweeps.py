"""A sweep of twelve jobs, two at a time, killed at five random moments and resumed each time."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from test_sweeps import TINY, run_json, write_data

from src.lock import is_locked
from src.studies.ledger import read_events, read_jobs
from src.studies.report.page import write_report

JOBS = 12
WORDS = ["-m", *TINY, "dataset.root=data", "training.panel_every=100000", "training.epochs=16", "training.checkpoint_seconds=0.2"]
WORDS += [
    "model.init=normal,kaiming,xavier",
    "optimizer.lr=0.1,0.05",
    "seed=0,1",
    "hydra/launcher=joblib",
    "hydra.launcher.n_jobs=2",
]


def start_group(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """In a process group of its own, which can be killed as one."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "console.txt").open("ab") as console:
        command = [sys.executable, "-m", "src.train", *words]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=console, stderr=console, start_new_session=True)


def sweep_in(folder: Path) -> Path:
    (sweep,) = (folder / "outputs" / "multirun" / "attunet_camvid").iterdir()
    return sweep


def begun_in(folder: Path) -> int:
    """How often a job was begun."""
    ledgers = folder.glob("outputs/multirun/*/*/ledger.jsonl")
    return sum(event["status"] == "running" for ledger in ledgers for event in read_events(ledger.parent))


def workers_of(folder: Path) -> list[int]:
    """Processes whose working folder this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == folder and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return found


def group_of(leader: int, folder: Path) -> list[int]:
    """The processes of a sweep that work in this folder."""
    found = []
    for process in workers_of(folder):
        with contextlib.suppress(ProcessLookupError):  # ended meanwhile
            if os.getpgid(process) == leader:
                found.append(process)
    return found


def wait_until_nobody_works(folder: Path) -> None:
    end = time.monotonic() + 60
    while left := workers_of(folder):
        assert time.monotonic() < end, f"orphans still work: {left}"
        time.sleep(0.2)


def rows(job: Path) -> list[list[str]]:
    """Of metrics.csv, without times."""
    lines = [line.split(",") for line in (job / "metrics.csv").read_text().splitlines()]
    kept = [place for place, tag in enumerate(lines[0]) if not tag.startswith(("time/", "speed/", "memory/"))]
    return [[line[place] for place in kept] for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds orphans by /proc, which this system has not")
def test_five_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        write_data(folder / "data")
    begin = time.monotonic()
    assert start_group(calm, *WORDS).wait(600) == 0, (calm / "console.txt").read_text()[-3000:]
    seconds = time.monotonic() - begin
    words, attempt_of = WORDS, {}
    for number in range(5):
        before = begun_in(killed)
        process = start_group(killed, *words)
        deadline = time.monotonic() + 120
        while begun_in(killed) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.03, 0.12) * seconds)
        whole_group = number % 2 == 1
        attempt_of |= dict.fromkeys(group_of(process.pid, killed), number)
        assert process.poll() is None, "the sweep had ended before it was killed"
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        stands = [job.status for job in read_jobs(sweep_in(killed))]
        epochs = [run_json(job.folder).get("epoch") for job in read_jobs(sweep_in(killed)) if job.status != "finished"]
        who = "the whole group" if whole_group else "the parent alone"
        print(f"kill {number + 1}, {who}: {stands.count('finished')} jobs finished, the others in epochs {epochs}")
        if number == 4:  # what may still be saving is waited for by the next sweeper, not by this test
            wait_until_nobody_works(killed)
        words = ["-m", f"study.resume={sweep_in(killed)}"]
    assert start_group(killed, *words).wait(600) == 0, (killed / "console.txt").read_text()[-3000:]
    wait_until_nobody_works(killed)
    jobs = read_jobs(sweep_in(killed))
    assert [job.status for job in jobs] == ["finished"] * JOBS
    assert not any(is_locked(job.folder) for job in jobs)
    for job in jobs:
        events = [event for event in read_events(sweep_in(killed)) if event["job"] == job.number]
        stands = [event["status"] for event in events]
        assert stands.count("finished") == 1, f"job {job.number} was begun again after it had finished: {stands}"
        for one, other in itertools.pairwise(events):
            if one["status"] == other["status"] == "running":  # without an end between them: the first one's sweep was killed
                attempts = [attempt_of.get(event["process"], 5) for event in (one, other)]
                assert attempts[0] < attempts[1], f"job {job.number} was begun by two living sweepers: {events}"
    twins = read_jobs(sweep_in(calm))
    assert [job.name for job in jobs] == [job.name for job in twins]
    assert [rows(job.folder) for job in jobs] == [rows(job.folder) for job in twins]
    assert f"{JOBS} finished" in write_report(sweep_in(killed)).read_text()
