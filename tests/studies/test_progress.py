"""What a sweep says while it runs."""

import fcntl
import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from made_runs import make_run, make_sweep

from src.studies.ledger import Job, Study, claim, note, write_study
from src.studies.progress import PAGE, in_words, refresh_page, seconds_left, tell_standing, weights_of, write_page

NOW = datetime.fromisoformat("2026-01-01T12:00:00+00:00")


def job(number: int, status: str, seconds: float = 0.0, begun: float | None = None) -> Job:
    since = None if begun is None else (NOW - timedelta(seconds=begun)).isoformat()
    return Job(number, f"{number}_x", Path(f"{number}_x"), [], "", status, None, seconds, None, None, 1, None, since)


def test_time_left_by_hand() -> None:
    """Jobs take twice what was planned. Two go on: one has 15 of its 20 s left, the other is late; 20 s and 40 s wait."""
    jobs = [job(0, "finished", 20.0, 100.0), job(1, "failed", 5.0), job(2, "running", begun=5.0), job(3, "running", begun=50.0)]
    jobs += [job(4, "queued"), job(5, "interrupted", 7.0)]
    weights = [10.0, 10.0, 10.0, 10.0, 10.0, 20.0]
    assert seconds_left(jobs, weights, NOW) == pytest.approx(40)  # no less than the longest of them
    assert seconds_left([*jobs, job(6, "queued")], [*weights, 30.0], NOW) == pytest.approx(60)
    more = [*jobs, *(job(number, "queued") for number in range(6, 12))]
    at_once = 3  # the two and the one that has just ended a job
    assert seconds_left(more, [*weights, *[10.0] * 6], NOW) == pytest.approx((15 + 0 + 20 + 40 + 6 * 20) / at_once)
    assert seconds_left(jobs[:4], weights, NOW) == pytest.approx(15)
    assert seconds_left(jobs[:2], weights, NOW) is None
    assert seconds_left(jobs[1:], weights, NOW) is None  # nothing to judge by
    assert [in_words(seconds) for seconds in (3.0, 89.0, 700.0, 9000.0)] == ["3 s", "89 s", "12 min", "2.5 h"]


def test_jobs_weigh_what_was_planned_and_others_their_mean() -> None:
    def study(*seconds: float | None) -> Study:
        jobs = [{"name": "x", "overrides": [], "short_id": "", "planned": {"seconds": s}} for s in seconds]
        return Study("x", None, [], {}, "continue", {}, jobs)

    assert weights_of(study(3.0, 5.0)) == [3.0, 5.0]
    assert weights_of(study(3.0, None, 5.0)) == [3.0, 4.0, 5.0]
    assert weights_of(study(None, None)) == [1.0, 1.0]


def test_standing_is_read_from_the_ledger(tmp_path: Path) -> None:
    jobs = [{"name": f"{n}_x", "overrides": [], "short_id": str(n), "planned": {"seconds": 50.0}} for n in range(5)]
    for on_error in ("continue", "stop"):
        sweep = tmp_path / on_error
        sweep.mkdir()
        write_study(sweep, Study("x", None, [], {"tag": "val/miou", "mode": "max"}, on_error, {}, jobs))
        note(sweep, 0, "running")
        make_run(sweep / "0_x", 0.5)
        note(sweep, 0, "finished", seconds=100.0, score=0.5)
        note(sweep, 1, "running")
        note(sweep, 1, "failed", seconds=4.0)
        with claim(sweep, 2):
            note(sweep, 2, "running")
            assert tell_standing(sweep) == "; 1 of 5 done, 1 failed" + (", about 2 min left" if on_error == "continue" else "")
    (sweep / "3_x").mkdir()
    (sweep / "3_x" / "run.json").write_text("{")
    assert tell_standing(sweep).startswith("; how the others stand is not known (")


def test_a_page_is_refreshed_once_it_is_old_and_by_one_at_a_time(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep")
    refresh_page(sweep)
    page = sweep / PAGE
    assert "12 finished" in page.read_text()
    page.write_text("fresh")
    refresh_page(sweep)
    assert page.read_text() == "fresh"
    os.utime(page, (0, time.time() - 60))
    with (sweep / ".report").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refresh_page(sweep)
    assert page.read_text() == "fresh"
    refresh_page(sweep)
    assert "12 finished" in page.read_text()


def test_a_page_that_cannot_be_written_is_told_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> Path:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("src.studies.report.page.write_report", fail)
    sweep = make_sweep(tmp_path / "sweep")
    assert not write_page(sweep)
    refresh_page(sweep)
    assert capsys.readouterr().err == "no report: ZeroDivisionError: a mistake of ours\n" * 2
    (sweep / ".report").unlink()
    (sweep / ".report").mkdir()  # which nobody can open
    refresh_page(sweep)
    assert capsys.readouterr().err.startswith("no report: [Errno ")
