"""A finished configuration is not trained again where it can be shown to be the same."""

import errno
import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from test_sweeps import LONG, TINY, ended, run_json, start, write_data

from src import run_folder, train
from src.build import Experiment, checked_datasets
from src.composing import prepare
from src.config import Config
from src.lock import takes_lock
from src.redaction import Redactor
from src.run_folder import Launch
from src.studies import reuse
from src.studies.ledger import Study, claim, note, read_events, read_jobs, write_study
from src.studies.reading import Run
from src.studies.reuse import find_finished, is_same, take_over
from src.studies.sweep import Options
from src.sweep_command import Command
from src.sweeping import plan_and_claim

HERE: dict[str, Any] = {"host": "here", "git_commit": "abc", "git_dirty": False, "packages": {"torch": "2.13.0"}}
GIT = """#!/bin/sh
case "$*" in *rev-parse*) echo 0123456789abcdef;; esac
"""


def finished(folder: Path, launch: Launch, config: Config) -> Run:
    """What training leaves behind of this configuration."""
    train, val = checked_datasets(config)
    facts = HERE | {
        **{"status": "finished", "short_id": launch.short_id, "config": launch.config, "best_score": 0.5, "failed_writes": 0},
        **{"ranks": 1, "lengthened": False, "mixed": False, "device": "cpu", "precision": "fp32", "threads": 1},
        "protocol": {"pretraining": "none"},
        "data_fingerprint": {"train": train.fingerprint, "val": val.fingerprint},
    }
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").write_text("weights")
    (folder / "metrics.csv").write_text("epoch,val/miou\n1,0.5\n")
    (folder / ".lock").write_text("")
    (folder / "run.json").write_text(json.dumps(facts))
    return Run(folder, json.loads((folder / "run.json").read_text()))


Point = tuple[Launch, Config]


@pytest.fixture
def point(tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Point]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reuse, "describe_environment", lambda: HERE)
    return lambda *words: prepare("config", [*tiny_overrides, "name=x", "precision=fp32", *words])


def test_what_makes_a_run_the_same(point: Callable[..., Point], tmp_path: Path) -> None:
    launch, config = point("seed=3")
    run = finished(tmp_path / "outputs" / "x" / "a", launch, config)
    assert is_same(run, launch, config, HERE)
    changes: list[dict[str, Any]] = [
        *({"git_commit": "def"}, {"git_commit": None}, {"git_dirty": True}, {"packages": {"torch": "2.14.0"}}, {"host": "there"}),
        *({"device": "NVIDIA Something"}, {"precision": "bf16"}, {"ranks": 2}, {"lengthened": True}, {"failed_writes": 1}),
        *({"mixed": True}, {"threads": 2}, {"threads": None}),
        *(
            {"data_fingerprint": {"train": "other", "val": "other"}},
            {"protocol": {"pretraining": "a file"}},
            {"best_score": None},
        ),
    ]
    for change in changes:
        assert not is_same(Run(run.folder, run.facts | change), launch, config, HERE), change
    for change in ({"git_dirty": True}, {"git_commit": None}):  # of what would run now
        assert not is_same(Run(run.folder, run.facts | change), launch, config, HERE | change), change
    for words in (["seed=4"], ["seed=3", "training.checkpoint_every=1"], ["seed=3", "training.panel_images=1"]):
        assert not is_same(run, *point(*words), HERE), words
    assert is_same(run, *point("seed=3", "loader.num_workers=2", "training.log_every=1"), HERE)
    for key, value in (("root", 1), ("root_x", 1), ("cache", "none"), ("caches", "none")):  # of another data set's class
        other = replace(launch, stored=launch.stored | {"dataset": launch.stored["dataset"] | {key: value}})
        assert is_same(run, other, config, HERE) is (key in ("root", "cache")), key
    (run.folder / "checkpoints" / "last.pt").unlink()
    assert not is_same(run, launch, config, HERE)
    open_point = point("threads=null")  # whose launcher decides
    assert not is_same(finished(tmp_path / "outputs" / "x" / "b", *open_point), *open_point, HERE)


@pytest.mark.slow  # trains six times
@pytest.mark.parametrize(("began_with", "is_mixed"), [({}, False), ({"git_commit": "A", "git_dirty": True}, True)])
def test_a_run_that_was_cut_and_went_on_with_other_code_is_another_one(
    point: Callable[..., Point], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began_with: dict[str, Any], is_mixed: bool
) -> None:
    """Trained here, cut after its first epoch, gone on with as this commit, and once more: what it began with is not lost."""
    code = HERE | began_with
    monkeypatch.setattr("src.environment.describe_environment", lambda: code)
    held: list[IO[bytes]] = []  # locks, which end with their process, and this one goes on
    monkeypatch.setattr(run_folder, "takes_lock", lambda lock: held.append(lock) or takes_lock(lock))

    def attempt(cut_at: int | None) -> Run:
        def cut(config: Config, experiment: Experiment, recorder: object) -> None:
            if experiment.state.epoch == cut_at:
                raise KeyboardInterrupt

        monkeypatch.setattr(train, "write_pictures", cut)
        launch, config = point("seed=3", "training.epochs=3", "training.resume=auto")
        with pytest.raises(KeyboardInterrupt) if cut_at else nullcontext():
            train.train(config, launch)
        held.pop().close()
        (folder,) = (tmp_path / "outputs" / "x").iterdir()
        return Run(folder, run_json(folder))

    attempt(2)
    code = HERE
    assert attempt(3).facts["mixed"] is is_mixed
    run = attempt(None)
    assert (run.status, run.facts["threads"], run.facts["epoch"]) == ("finished", 1, 3)
    assert run.facts["git_commit"] == HERE["git_commit"]
    assert run.facts["mixed"] is is_mixed
    assert is_same(run, *point("seed=3", "training.epochs=3"), HERE) is not is_mixed


def test_a_finished_run_becomes_the_job_and_stays_as_it_is(
    point: Callable[..., Point], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [point(f"seed={seed}") for seed in range(4)]
    alone = finished(tmp_path / "outputs" / "x" / "alone", *points[1])
    swept = finished(tmp_path / "outputs" / "multirun" / "x" / "earlier" / "0_x", *points[2])
    finished(tmp_path / "outputs" / "y" / "of another name", *points[0])
    finished(tmp_path / "outputs" / "multirun" / "x" / "earlier" / "3_x", *points[3])
    sweep = tmp_path / "outputs" / "multirun" / "x" / "new"
    sweep.mkdir()
    jobs = [{"name": f"{n}_seed-{n}", "overrides": [], "short_id": launch.short_id} for n, (launch, _) in enumerate(points)]
    write_study(sweep, Study("x", None, [], {"tag": "val/miou", "mode": "max"}, "continue", {}, jobs))
    launches, configs = zip(*points, strict=True)
    with claim(sweep, 3):  # another sweeper has begun it
        take_over(sweep, find_finished(range(4), launches, configs, sweep))
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0].partition(";")[0] for line in said] == [
        f"job {n} was finished before, in {run.folder.relative_to(tmp_path)}" for n, run in ((1, alone), (2, swept))
    ]
    now = read_jobs(sweep)
    assert [(job.status, job.score, job.attempts) for job in now[:3]] == [
        ("queued", None, 0),
        ("finished", 0.5, 0),
        ("finished", 0.5, 0),
    ]
    assert not now[3].folder.exists()
    assert [event["reused"] for event in read_events(sweep)] == [str(run.folder.relative_to(tmp_path)) for run in (alone, swept)]
    names = ["checkpoints", "checkpoints/last.pt", "metrics.csv", "run.json"]
    assert sorted(str(file.relative_to(now[1].folder)) for file in now[1].folder.rglob("*")) == names
    assert run_json(now[1].folder) == alone.facts | {"reused": str(alone.folder.relative_to(tmp_path))}
    is_shared = [(alone.folder / name).stat().st_ino == (now[1].folder / name).stat().st_ino for name in names[1:]]
    assert is_shared == [True, False, False]  # the others grow when a run goes on
    assert [path.name for path in sweep.iterdir() if path.name.startswith(".") and "partial" in path.name] == []


def test_what_cannot_be_taken_over_is_told_and_left_to_be_trained(
    point: Callable[..., Point], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full while the first job's table, the second's run.json, the third's line in the ledger are written."""
    points = [point(f"seed={seed}") for seed in range(4)]
    for number, each in enumerate(points):
        finished(tmp_path / "outputs" / "x" / str(number), *each)
    sweep = tmp_path / "outputs" / "multirun" / "x" / "new"
    sweep.mkdir(parents=True)
    jobs = [{"name": f"{n}_x", "overrides": [], "short_id": launch.short_id} for n, (launch, _) in enumerate(points)]
    write_study(sweep, Study("x", None, [], {"tag": "val/miou", "mode": "max"}, "continue", {}, jobs))
    calls: dict[str, int] = {}

    def failing(name: str, real: Callable[..., Any], at: int) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            if calls[name] == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            return real(*words, **options)

        return call

    monkeypatch.setattr(reuse, "_share", failing("last.pt", reuse._share, 1))
    monkeypatch.setattr(reuse, "write_json", failing("run.json", reuse.write_json, 1))
    monkeypatch.setattr(reuse, "note", failing("ledger.jsonl", reuse.note, 1))
    launches, configs = zip(*points, strict=True)
    take_over(sweep, find_finished(range(4), launches, configs))
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"job {n} was finished before, but is trained again ([Errno 28] No space left on device: '{name}')"
        for n, name in enumerate(("last.pt", "run.json", "ledger.jsonl"))
    ]
    assert said.out.startswith("job 3 was finished before, in ")
    assert [job.status for job in read_jobs(sweep)] == ["queued", "queued", "queued", "finished"]
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"3_x"}
    assert all((tmp_path / "outputs" / "x" / str(n) / "checkpoints" / "last.pt").is_file() for n in range(4))

    def closed(root: Path) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root))

    monkeypatch.setattr(reuse, "read_runs", closed)
    assert find_finished(range(4), launches, configs) == {}
    homes = [Path("outputs/x"), Path("outputs/multirun/x")]
    assert capsys.readouterr().err.splitlines() == [
        f"finished runs are not looked for in {home} ([Errno 13] Permission denied: '{home}')" for home in homes
    ]


def test_why_a_finished_run_is_not_taken_over_is_told(
    point: Callable[..., Point], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch, config = point("seed=0")
    run = finished(tmp_path / "outputs" / "x" / "alone", launch, config)
    (run.folder / "run.json").write_text(json.dumps(run.facts | {"git_dirty": True}))
    assert find_finished([0], [launch], [config]) == {}
    assert "1 jobs had a finished run of the same keys, which is not taken over: committed code" in capsys.readouterr().out


def test_a_plan_counts_as_taken_over_only_what_will_be(
    point: Callable[..., Point], tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Both jobs of a sweep have a finished twin; the first one had failed in the sweep itself, and is trained again."""
    words = [*tiny_overrides, "name=x", "precision=fp32", "seed=0,1"]
    folder = plan_and_claim(Command([], words, Options(), None), lambda _: None, Redactor([]))
    assert folder is not None
    for seed in (0, 1):
        finished(Path("outputs") / "x" / str(seed), *point(f"seed={seed}"))
    job = read_jobs(folder)[0]
    job.folder.mkdir()
    (job.folder / "run.json").write_text('{"status": "failed"}')
    for status in ("running", "failed"):
        note(folder, 0, status)
    capsys.readouterr()
    for options in (Options(resume=str(folder), plan=True), Options(resume=str(folder))):
        plan_and_claim(Command([], words, options, folder), lambda _: None, Redactor([]))
    said = capsys.readouterr().out
    assert re.search(rf"{job.name}\n1 jobs, .*\n1 more were finished before and are taken over\n", said)
    assert "job 1 was finished before" in said
    assert "2 jobs, 1 to run" in said
    assert [job.status for job in read_jobs(folder)] == ["queued", "finished"]


@pytest.mark.slow
def test_a_second_sweep_trains_only_what_is_new(tmp_path: Path) -> None:
    """In real processes, where git says that nothing is uncommitted."""
    write_data(tmp_path / "data")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(GIT)
    (tmp_path / "bin" / "git").chmod(0o755)

    def sweep(*words: str) -> str:
        process = start(tmp_path, "-m", *TINY, "dataset.root=data", *words, PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
        with ended(process):
            stdout, stderr = process.communicate(timeout=LONG)
        assert process.returncode == 0, stderr
        return stdout

    sweep("seed=0,1")
    planned = sweep("seed=1,2", "study.plan=true")
    assert "1 jobs, " in planned
    assert "1 more were finished before and are taken over" in planned
    said = sweep("seed=1,2")
    home = tmp_path / "outputs" / "multirun" / "attunet_camvid"
    first, second = sorted(home.iterdir())
    assert f"job 0 was finished before, in {(first / '1_seed-1').relative_to(tmp_path)}" in said
    assert "sweep of 2 jobs, 1 to run" in said
    assert [(job.status, job.attempts) for job in read_jobs(second)] == [("finished", 0), ("finished", 1)]
    assert "2 finished" in (second / "report.html").read_text()
    evaluated = start(tmp_path, "run=" + str(second / "0_seed-1"), module="src.evaluate")
    with ended(evaluated):
        stdout, stderr = evaluated.communicate(timeout=LONG)
    assert evaluated.returncode == 0, stderr
    assert f"{run_json(first / '1_seed-1')['best_score']:.4f}" in stdout
    assert "sweep of 1 jobs, 1 to run" in sweep("seed=1", "study.again=true")
