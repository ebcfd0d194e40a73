"""What became of each job, however its processes died."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from made_runs import make_run, make_sweep

from src.errors import UserError
from src.studies.ledger import (
    LEDGER,
    STUDY,
    Study,
    claim,
    is_claimed,
    note,
    note_missed_end,
    read_events,
    read_jobs,
    read_study,
    write_study,
)

HOLDER = """
import time
from pathlib import Path
from src.studies.ledger import claim
with claim(Path({!r}), 3) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def planned(folder: Path, number: int) -> Path:
    folder.mkdir(exist_ok=True)
    jobs = [{"name": f"{n}_x", "overrides": [f"seed={n}"], "short_id": str(n)} for n in range(number)]
    write_study(folder, Study("x", None, [], {"tag": "val/miou", "mode": "max"}, "continue", {}, jobs))
    return folder


def write_many(folder: Path, job: int) -> None:
    for number in range(50):
        note(folder, job, "running", nth=number, filler="x" * 500)


@pytest.mark.slow
def test_writers_in_parallel_lose_nothing(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=write_many, args=(tmp_path, job)) for job in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    events = read_events(tmp_path)
    assert [[event["nth"] for event in events if event["job"] == job] for job in range(3)] == [list(range(50))] * 3


def test_a_line_that_a_kill_tore_is_left_out_and_ended(tmp_path: Path) -> None:
    note(tmp_path, 0, "running")
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"job": 1, "status": "fini')
    assert [event["job"] for event in read_events(tmp_path)] == [0]
    note(tmp_path, 2, "running")
    assert [event["job"] for event in read_events(tmp_path)] == [0, 2]


def test_whoever_only_looks_keeps_no_job_from_being_claimed(tmp_path: Path) -> None:
    with claim(tmp_path, 0):
        pass
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            is_claimed(tmp_path, 0)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(200):
            with claim(tmp_path, 0) as is_mine:
                assert is_mine
    finally:
        done.set()
        looker.join()


def test_a_claim_is_held_by_one_and_dies_with_its_process(tmp_path: Path) -> None:
    holder = HOLDER.format(str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "True\n"
        assert is_claimed(tmp_path, 3)
        with claim(tmp_path, 3) as mine:
            assert not mine
        os.kill(process.pid, signal.SIGKILL)
    assert not is_claimed(tmp_path, 3)
    with claim(tmp_path, 3) as mine:
        assert mine


def test_each_status(tmp_path: Path) -> None:
    folder = planned(tmp_path / "sweep", 6)
    note(folder, 1, "running")  # and its sweeper was killed
    note(folder, 2, "running")
    note(folder, 2, "failed", seconds=2.0, error="no memory")
    for number, score in ((3, 0.5), (4, 0.25)):
        note(folder, number, "running")
        make_run(folder / f"{number}_x", score)
    note(folder, 3, "interrupted", seconds=1.0)  # of its first attempt; its run went on and finished
    note(folder, 3, "running")
    note(folder, 3, "finished", seconds=3.0)
    with claim(folder, 5):
        note(folder, 5, "running")
        jobs = read_jobs(folder)
    stands = ["queued", "interrupted", "failed", "finished", "finished", "running"]
    assert [job.status for job in jobs] == stands
    assert [job.score for job in jobs] == [None, None, None, 0.5, 0.25, None]
    assert (jobs[3].attempts, jobs[3].seconds) == (2, 4.0)
    assert jobs[2].error == "no memory"
    assert jobs[4].process == os.getpid()
    assert jobs[1].overrides == ["seed=1"]


def test_an_end_that_nobody_could_write_down_is_added_once(tmp_path: Path) -> None:
    folder = planned(tmp_path / "sweep", 2)
    note(folder, 0, "running")  # and its sweeper was killed before the job ended
    make_run(folder / "0_x", 0.5)
    note(folder, 1, "finished", score=0.25)
    for _ in range(2):
        for number, score in ((0, 0.5), (1, 0.25)):
            note_missed_end(folder, number, score)
    assert [(e["job"], e["status"], e.get("score")) for e in read_events(folder)] == [
        (0, "running", None),
        (1, "finished", 0.25),
        (0, "finished", 0.5),
    ]


def test_what_is_no_sweep_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no study\.json there"):
        read_study(tmp_path)
    (tmp_path / STUDY).write_text("{")
    with pytest.raises(UserError, match=r"study\.json: not readable as JSON"):
        read_study(tmp_path)


def test_a_study_comes_back(tmp_path: Path) -> None:
    study = read_study(make_sweep(tmp_path / "sweep"))
    assert (study.name, len(study.jobs)) == ("made", 12)
    assert json.loads((tmp_path / "sweep" / STUDY).read_text())["question"] == study.question
