"""Sweeps that are planned, refused, stopped, shared and gone on with, in real processes."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_sweeps import LONG, SWEPT, TINY, ended, run_json, start, wait_for, without, write_data

from src.studies.ledger import read_events, read_jobs, read_study

pytestmark = pytest.mark.slow
BREAKS_THE_STEP = """
import sys
if "model.init=normal" in sys.orig_argv and any(word.startswith("hydra.run.dir=") for word in sys.orig_argv):
    import src.loop
    def unable(*batch):
        raise RuntimeError("no such kernel")
    src.loop.train_step = unable
"""
COMMON = ["-m", *TINY, "dataset.root=data", "training.panel_every=100000"]


def ran(folder: Path, *words: str) -> tuple[int, str, str]:
    process = start(folder, *words)
    with ended(process):
        stdout, stderr = process.communicate(timeout=LONG)
    return process.returncode, stdout, stderr


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    return tmp_path


def sweep_in(work: Path) -> Path:
    (folder,) = (work / "outputs" / "multirun" / "attunet_camvid").iterdir()
    return folder


def test_a_plan_is_printed_and_nothing_is_left(work: Path) -> None:
    common = without("model.channels", COMMON)
    code, stdout, stderr = ran(work, *common, "model.channels=[4,8],[8,16]", "seed=0,1", "study.plan=true")
    assert code == 0, stderr
    lines = stdout.splitlines()
    assert len(lines) == 6
    counts = [int(re.findall(r"([\d,]+) parameters", line)[0].replace(",", "")) for line in lines[:4]]
    assert counts[0] == counts[1] < counts[2] == counts[3]
    macs = [float(re.findall(r"([\d.]+) GMACs", line)[0]) for line in lines[:4]]
    assert macs[0] <= macs[2]
    assert lines[4].startswith("4 jobs, ")
    assert not (work / "outputs").exists()


def test_what_is_wrong_is_told_and_leaves_nothing(work: Path) -> None:
    code, stdout, stderr = ran(work, *COMMON, "optimizer.lr=0.1,0.2,1e-1")
    assert (code, stdout) == (1, "")
    assert stderr.startswith("error: jobs 0 and 2 are the same: ")
    for words, why in (
        (["study.on_error=ignore"], "allowed are continue, stop"),
        (["study.again=yes"], "allowed are true, false"),
        (["study.resume=nowhere", "seed=0,1"], "nowhere"),
    ):
        code, _, stderr = ran(work, *COMMON, *words)
        assert code == 1
        assert why in stderr.splitlines()[-1]
    assert [path.name for path in work.iterdir() if path.name != "data"] == []


def test_a_sweep_whose_job_fails_goes_on_and_says_so_at_the_end_and_resumes(work: Path) -> None:
    words = [*COMMON, "optimizer.lr=1e30,0.01,0.02"]
    code, stdout, _ = ran(work, *words)
    folder = sweep_in(work)
    jobs = read_jobs(folder)
    assert code == 1
    assert [job.status for job in jobs] == ["failed", "finished", "finished"]
    assert re.search(r"0_lr-1e\S* +failed: ", stdout)
    assert "Traceback" in (jobs[0].folder / "train.log").read_text()
    times = [(job.folder / "run.json").stat().st_mtime_ns for job in jobs]
    code, stdout, _ = ran(work, "-m", f"study.resume={folder}")
    assert "1 to run" in stdout
    assert code == 1
    again = read_jobs(folder)
    assert [job.attempts for job in again] == [2, 1, 1]
    assert [(job.folder / "run.json").stat().st_mtime_ns for job in again][1:] == times[1:]


def test_a_sweep_that_is_stopped_from_the_keyboard_says_how_it_goes_on(work: Path) -> None:
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it, and so would the sweep
    common = ["-m", *SWEPT, "dataset.root=data", "training.panel_every=100000"]
    process = start(work, *common, "training.epochs=100000,1", "training.log_every=1000")
    signal.signal(signal.SIGINT, before)
    with ended(process):
        wait_for(lambda: any(run_json(job).get("epoch") for job in work.glob("outputs/multirun/*/*/0_*")), LONG, "it trains")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 130
    (told,) = [line for line in stderr.splitlines() if line.startswith("this command stops here; ")]
    assert f"{sys.executable} -m src.train -m study.resume='{sweep_in(work).relative_to(work)}' goes on" in told
    assert "1 interrupted" in (sweep_in(work) / "report.html").read_text()
    assert read_jobs(sweep_in(work))[0].status == "interrupted"


def test_a_mistake_of_ours_is_on_the_console_at_once_and_in_the_jobs_own_log(work: Path) -> None:
    """Its training step fails in the first job, which no check before it can know."""
    (work / "sitecustomize.py").write_text(BREAKS_THE_STEP)
    words = [*COMMON, "model.init=normal,kaiming"]
    process = start(work, *words, PYTHONPATH=f"{work}{os.pathsep}{ROOT}")
    with ended(process):
        assert process.stderr is not None
        said = [process.stderr.readline()]
        while "job 0 failed" not in said[-1]:
            assert said[-1], f"the first job did not fail: {said}"
            said.append(process.stderr.readline())
        assert process.poll() is None  # the second job is still to come
        assert said[0] == "Traceback (most recent call last):\n"
        assert said[-2].startswith("RuntimeError: ")
        stdout, _ = process.communicate(timeout=LONG)
    jobs = read_jobs(sweep_in(work))
    assert process.returncode == 1
    assert [job.status for job in jobs] == ["failed", "finished"]
    log = (jobs[0].folder / "train.log").read_text()
    assert "Traceback" in log
    assert said[-2].strip() in log
    assert re.search(rf"{jobs[0].name} +failed: RuntimeError", stdout)
    assert "1 failed" in (sweep_in(work) / "report.html").read_text()


def test_a_sweep_over_its_budget_does_not_begin(work: Path) -> None:
    (work / "conf" / "study").mkdir(parents=True)
    study = "paired: {seed: [0, 1], optimizer.lr: [0.1, 0.2]}\n  budget: {hours: 0.0001}\n"
    (work / "conf" / "study" / "dear.yaml").write_text(f"# @package _global_\nstudy:\n  question: Which?\n  {study}")
    words = [*COMMON, "study=dear", f"hydra.searchpath=[file://{work / 'conf'}]"]
    code, stdout, stderr = ran(work, *words)
    assert code == 1
    assert re.fullmatch(r"error: the plan takes \d+ s one after another, study\.budget\.hours is 0\.0001; .*\n", stderr)
    assert stdout.splitlines()[1].endswith("1_seed-1_lr-0.2")
    assert not (work / "outputs").exists()
    code, stdout, stderr = ran(work, *words, "study.budget.hours=1", "study.plan=true")
    assert code == 0, stderr


def test_on_error_stop_begins_no_more_until_it_goes_on(work: Path) -> None:
    """What failed is tried again: with the same end while `stop` holds, and one that can train goes on to the others."""
    code, _, stderr = ran(work, *COMMON, "optimizer.lr=0.02,1e30,0.01", "study.on_error=stop")
    folder = sweep_in(work)
    assert code == 1
    assert stderr
    assert [job.status for job in read_jobs(folder)] == ["finished", "failed", "queued"]
    code, stdout, _ = ran(work, "-m", f"study.resume={folder}")
    assert code == 1
    assert "2 to run" in stdout
    assert [(job.status, job.attempts) for job in read_jobs(folder)] == [("finished", 1), ("failed", 2), ("queued", 0)]
    assert ran(work, "-m", f"study.resume={folder}", "study.on_error=continue")[0] == 1
    assert [(job.status, job.attempts) for job in read_jobs(folder)] == [("finished", 1), ("failed", 3), ("finished", 1)]


def test_a_changed_study_is_refused_by_name(work: Path) -> None:
    assert ran(work, *COMMON, "seed=0,1")[0] == 0
    folder = sweep_in(work)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for words, why in (
        (["seed=0,1", "optimizer.lr=0.3"], "optimizer.lr (0.1 there, 0.3 here)"),
        (["seed=0,1,2"], "has 2 jobs, here are 3"),
        (["seed=0,5"], "job 1 is 1_seed-1 there and 1_seed-5 here"),
    ):
        code, _, stderr = ran(work, *COMMON, *words, f"study.resume={folder}")
        assert code == 1
        assert why in stderr
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    code, _, stderr = ran(work, *COMMON, "seed=0,1", f"hydra.sweep.dir={folder}")
    assert code == 1
    assert f"study.resume={folder} goes on with it" in stderr
    assert read_study(folder).monitor == {"tag": "val/miou", "mode": "max"}


def test_two_sweepers_on_one_folder_share_the_work(work: Path) -> None:
    first = start(work, *COMMON, "seed=0,1,2,3", "training.epochs=12")
    with ended(first):
        homes = work / "outputs" / "multirun" / "attunet_camvid"
        wait_for(lambda: homes.is_dir() and list(homes.glob("*/0_*/run.json")), LONG, "the first job runs")
        folder = sweep_in(work)
        code, stdout, stderr = ran(work, "-m", f"study.resume={folder}")
        out, _ = first.communicate(timeout=LONG)
    assert (code, first.returncode) == (0, 0), stderr
    jobs = read_jobs(folder)
    assert [(job.status, job.attempts) for job in jobs] == [("finished", 1)] * 4
    assert "another sweeper works on it" in stdout + out
    assert len({event["process"] for event in read_events(folder)}) == 2  # both have worked


def test_a_job_that_was_killed_goes_on_from_its_checkpoint(work: Path) -> None:
    words = [*COMMON, "seed=0,1", "training.epochs=40"]
    first = start(work, *words)
    with ended(first):
        homes = work / "outputs" / "multirun" / "attunet_camvid"
        job = wait_for(lambda: next(homes.glob("*/0_*"), None) if homes.is_dir() else None, LONG, "a folder")
        wait_for(lambda: (run_json(job).get("epoch") or 0) >= 3, LONG, "three epochs")
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    folder = sweep_in(work)
    code, stdout, stderr = ran(work, "-m", f"study.resume={folder}")
    assert code == 0, stderr
    assert f"job 0: {job.name} goes on" in stdout
    assert "resumed after epoch" in (job / "train.log").read_text()
    assert [(job.status, job.attempts) for job in read_jobs(folder)] == [("finished", 2), ("finished", 1)]
    rows = (job / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows[1:]] == [str(epoch) for epoch in range(1, 41)]
