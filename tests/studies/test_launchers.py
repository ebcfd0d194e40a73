"""Sweeps under other launchers and sweepers of Hydra, in real processes."""

import importlib.util
import os
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest
import slurm
import yaml
from processes import repeatable_rows
from test_sweeps import LONG, PASSWORD, TINY, ended, jobs_of, run_json, start, wait_for, write_data

from src.studies.ledger import read_events, read_jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc, which this system has not"),
]
ROOT = f"https://user:{PASSWORD}@host/data"
COMMON = ["-m", *TINY, f"dataset.root='{ROOT}'", "training.panel_every=100000"]
LOCAL = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=20"]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_data(tmp_path / "https:" / f"user:{PASSWORD}@host" / "data")
    return tmp_path


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with ended(process):
        stdout, stderr = process.communicate(timeout=LONG)
    return process.returncode, stdout, stderr


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def worker_of(sweeper: int, job: Path) -> int:
    """submitit's process that supervises the job; both the sweep's grandchild and the parent of the one that trains."""
    trains = run_json(job)["process"]
    (worker,) = [worker for controller in children(sweeper) for worker in children(controller) if trains in children(worker)]
    return worker


def wait_for_epoch(sweep: Path, job: str, epoch: int = 3) -> Path:
    def reached() -> Path | None:
        return next((folder for folder in sweep.glob(job) if (run_json(folder).get("epoch") or 0) >= epoch), None)

    return wait_for(reached, LONG, f"{job} is in epoch {epoch}")


def check_nothing_secret_is_left(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [str(path) for path in files if PASSWORD.encode() in path.read_bytes()] == []
    assert not list(folder.rglob("*.pkl"))
    assert not list(folder.rglob(".hydra"))


def statuses(sweep: Path, job: int) -> list[str]:
    return [event["status"] for event in read_events(sweep) if event["job"] == job]


def test_no_launcher_joblib_and_submitit_give_the_same_scores(work: Path) -> None:
    words = [*COMMON, "seed=0,1", "model.init=normal,kaiming", "training.epochs=8"]
    launchers = {"none": [], "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "submitit": LOCAL}
    found = {}
    for name, launcher in launchers.items():
        code, stdout, stderr = finish(start(work, *words, *launcher, f"hydra.sweep.dir={name}"))
        assert code == 0, stderr
        jobs = read_jobs(work / name)
        assert [job.status for job in jobs] == ["finished"] * 4
        assert [job.attempts for job in jobs] == [1] * 4
        assert jobs_of(work / name) == sorted([job.folder for job in jobs] + [work / name / ".submitit"] * (name == "submitit"))
        assert (work / name / "report.html").is_file()
        assert PASSWORD not in stdout + stderr
        check_nothing_secret_is_left(work / name)
        found[name] = [(job.score, repeatable_rows(job.folder)) for job in jobs]
        print(f"{name:10} {[job.score for job in jobs]}")
    assert found["none"] == found["joblib"] == found["submitit"]
    assert len({score for score, _ in found["none"]}) > 1, "scores that are all the same say nothing"
    assert stat.S_IMODE((work / "submitit" / ".submitit").stat().st_mode) == 0o700
    assert not (work / "outputs").exists()


def test_a_job_that_submitit_is_told_to_give_up_is_queued_again_and_goes_on(work: Path) -> None:
    words = [*COMMON, "seed=0,1", "training.epochs=60"]
    calm = start(work, *words, "hydra.sweep.dir=calm")
    process = start(work, *words, *LOCAL, "hydra.sweep.dir=preempted")
    with ended(calm, process):
        job = wait_for_epoch(work / "preempted", "0_*")
        os.kill(worker_of(process.pid, job), signal.SIGUSR2)
        outcomes = [finish(process), finish(calm)]
    assert [code for code, _, _ in outcomes] == [0, 0], outcomes
    assert statuses(work / "preempted", 0) == ["running", "interrupted", "running", "finished"]
    assert statuses(work / "preempted", 1) == ["running", "finished"]
    assert "resumed after epoch" in (job / "train.log").read_text()
    check_same_rows(work / "calm", work / "preempted")
    check_nothing_secret_is_left(work / "preempted")


def test_a_job_of_submitit_whose_time_is_over_saves_and_ends(work: Path) -> None:
    """Within ten minutes of its end, each signal of submitit's counts as that."""
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]
    process = start(work, *COMMON, "seed=0", "training.epochs=100000", *launcher, "hydra.sweep.dir=sweep")
    with ended(process):
        job = wait_for_epoch(work / "sweep", "0_*")
        os.kill(worker_of(process.pid, job), signal.SIGUSR2)
        code, stdout, _ = finish(process)
    assert code == 1
    assert statuses(work / "sweep", 0) == ["running", "interrupted"]
    assert run_json(job)["status"] == "interrupted"
    assert re.search(r"0_run +interrupted: .*timed-out", stdout)


def check_same_rows(calm: Path, disturbed: Path) -> None:
    for one, other in zip(read_jobs(calm), read_jobs(disturbed), strict=True):
        assert other.status == "finished"
        assert repeatable_rows(one.folder) == repeatable_rows(other.folder)


def test_a_job_that_slurm_takes_away_is_queued_again_and_goes_on(work: Path) -> None:
    """Slurm sends TERM to all of a job's processes, then USR2. It is a stand-in here; submitit and its launcher are real."""
    place = work / "slurm"
    environment = slurm.install(place)
    words = [*COMMON, "seed=0,1", "training.epochs=60"]
    calm = start(work, *words, "hydra.sweep.dir=calm")
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=60"]
    process = start(work, *words, *launcher, "loader.num_workers=2", "hydra.sweep.dir=preempted", **environment)
    with ended(calm, process):
        job = wait_for_epoch(work / "preempted", "0_*")
        trains = run_json(job)["process"]
        slurm.tell(place, 0, signal.SIGTERM)
        wait_for(lambda: "interrupted" in statuses(work / "preempted", 0), LONG, "the job has saved and waits")
        assert not Path(f"/proc/{trains}").exists()
        slurm.tell(place, 0, signal.SIGUSR2)
        outcomes = [finish(process), finish(calm)]
    assert [code for code, _, _ in outcomes] == [0, 0], (outcomes, (place / "slurmd.txt").read_text())
    script = work / "preempted" / ".submitit" / f"{slurm.ARRAY}" / f"{slurm.ARRAY}_submission.sh"
    assert "#SBATCH --partition=gpu" in script.read_text()
    assert statuses(work / "preempted", 0) == ["running", "interrupted", "running", "finished"]
    assert statuses(work / "preempted", 1) == ["running", "finished"]
    assert "resumed after epoch" in (job / "train.log").read_text()
    check_same_rows(work / "calm", work / "preempted")


def test_a_failed_job_and_a_killed_worker_leave_the_others_and_the_report(work: Path) -> None:
    process = start(work, *COMMON, "optimizer.lr=1e30,0.01,0.02", "training.epochs=100", *LOCAL, "hydra.sweep.dir=sweep")
    with ended(process):
        job = wait_for_epoch(work / "sweep", "1_*")
        os.kill(worker_of(process.pid, job), signal.SIGKILL)
        code, stdout, stderr = finish(process)
    assert code == 1
    assert [job.status for job in read_jobs(work / "sweep")] == ["failed", "interrupted", "finished"]
    assert "the launcher gave up" in stderr
    assert PASSWORD not in stdout + stderr
    assert re.search(r"1_lr-0.01 +interrupted", stdout)
    assert "1 finished" in (work / "sweep" / "report.html").read_text()
    wait_for(lambda: run_json(job)["status"] == "interrupted", 60, "the orphan saves and ends")


def test_jobs_of_submitit_end_with_a_killed_sweep(work: Path) -> None:
    process = start(work, *COMMON, "seed=0", "training.epochs=100000", *LOCAL, "hydra.sweep.dir=sweep")
    with ended(process):
        job = wait_for_epoch(work / "sweep", "0_*")
        trains = run_json(job)["process"]
        process.kill()
        process.wait(60)
        wait_for(lambda: statuses(work / "sweep", 0)[-1] == "interrupted", 60, "the job saves")
        assert run_json(job)["status"] == "interrupted"
        assert not Path(f"/proc/{trains}").exists()


def test_optuna_searches_in_the_direction_of_the_monitor_past_a_failure_and_goes_on(work: Path) -> None:
    monitor = ["monitor.tag=speed/images_per_second"]  # which no two trials share, as they would mIoU after one epoch
    search = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.n_trials=5"]
    words = [*COMMON, *monitor, "optimizer.lr=1e30,0.01", "optimizer.momentum=interval(0.1,0.9)", *search]
    code, stdout, stderr = finish(start(work, *words, "hydra.sweep.dir=search"))
    assert code == 0, stderr
    assert {job.status for job in read_jobs(work / "search")} == {"finished", "failed"}
    code, more, stderr = finish(start(work, *words[:-1], "hydra.sweeper.n_trials=6", f"study.resume={work / 'search'}"))
    assert code == 0, stderr
    assert PASSWORD not in stdout + more + stderr
    jobs = read_jobs(work / "search")
    assert [job.attempts for job in jobs] == [1] * 6
    runs = [run_json(job.folder) for job in jobs if job.status == "finished"]
    best = max(runs, key=lambda run: run["best_score"])
    told = yaml.safe_load((work / "search" / "optimization_results.yaml").read_text())
    assert told["best_value"] == best["best_score"]
    assert told["best_params"]["optimizer.momentum"] == best["config"]["optimizer"]["momentum"]
    assert f"best of the search: {best['best_score']:.4f} with optimizer.lr=0.01 optimizer.momentum=" in more
    assert (work / "search" / "report.html").is_file()
    check_nothing_secret_is_left(work / "search")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'")
def test_ray_gives_the_same_scores_as_no_launcher(work: Path) -> None:
    words = [*COMMON, "seed=0,1", "training.epochs=4"]
    ray = ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]
    quiet = {"HOME": str(work), "RAY_USAGE_STATS_ENABLED": "0"}  # Ray keeps a token at home, and reports its use
    for name, launcher in (("none", []), ("ray", ray)):
        process = start(work, *words, *launcher, f"hydra.sweep.dir={name}", **quiet)
        code, _, stderr = finish(process)
        assert code == 0, stderr
    check_same_rows(work / "none", work / "ray")
    check_nothing_secret_is_left(work / "ray")
