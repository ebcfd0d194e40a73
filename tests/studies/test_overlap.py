"""Which runs trained beside others."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from made_runs import make_run

from src.studies.ledger import LEDGER, Study, write_study
from src.studies.overlap import beside_others
from src.studies.reading import read_runs
from src.studies.report.charts import charts_of
from src.studies.report.page import write_report
from src.studies.report.saving import save_data
from src.studies.report.tradeoffs import tradeoffs
from src.studies.statistics.standing import standings

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def at(clock: str) -> str:
    return f"2026-01-01T{clock}:00+00:00"


def found(folder: Path, *sweeps: Path) -> set[str]:
    return {place.name for place in beside_others(read_runs(folder)[0], sweeps, NOW)}


def run_at(folder: Path, start: str, end: str | None, **more: Any) -> Path:
    return make_run(folder, 0.3, start=start, end=end, short_id=folder.name, **more)


def test_times_that_overlap_on_one_host(tmp_path: Path) -> None:
    run_at(tmp_path / "long", at("10:00"), at("14:00"))
    run_at(tmp_path / "within", at("11:00"), at("12:00"))
    run_at(tmp_path / "later, with another offset", "2026-01-01T14:30:00+01:00", "2026-01-01T15:10:00+01:00")  # 13:30 UTC
    run_at(tmp_path / "elsewhere", at("11:00"), at("12:00"), host="another")
    run_at(tmp_path / "next", at("14:10"), at("15:00"))  # as the one before ends
    run_at(tmp_path / "right after", at("15:00"), at("16:00"))
    run_at(tmp_path / "no end", at("11:00"), None)
    run_at(tmp_path / "no time", "?", at("12:00"))
    assert found(tmp_path) == {"long", "within", "later, with another offset"}


def test_a_copy_of_a_run_did_not_train_beside_it(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "0_a", 0.3, start=at("10:00"), end=at("11:00"), short_id="aaaaaaaa")
    make_run(tmp_path / "again" / "0_a", 0.3, start=at("10:00"), end=at("11:00"), short_id="aaaaaaaa", reused="sweep/0_a")
    assert found(tmp_path) == set()


def sweep_of(folder: Path, events: list[tuple[int, str, str]], *spans: tuple[str, str]) -> Path:
    """Jobs with a ledger of these events: job, status, time."""
    names = [f"{number}_x" for number in range(len(spans))]
    for (start, end), name in zip(spans, names, strict=True):
        run_at(folder / name, at(start), at(end))
    jobs = [{"name": name, "overrides": [], "short_id": name} for name in names]
    write_study(folder, Study("made", None, [], {}, "continue", {}, jobs))
    lines = [{"job": job, "status": status, "time": at(clock), "host": "a machine"} for job, status, clock in events]
    (folder / LEDGER).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def test_a_resumed_job_rested_in_between(tmp_path: Path) -> None:
    """By its run.json it took from 10 to 15; the ledger says that another trained while it was interrupted."""
    events = [(0, "running", "10:00"), (0, "interrupted", "11:00"), (1, "running", "12:00"), (1, "finished", "13:00")]
    events += [(0, "running", "14:00"), (0, "finished", "15:00")]
    sweep = sweep_of(tmp_path / "sweep", events, ("10:00", "15:00"), ("12:00", "13:00"))
    assert found(sweep, sweep) == set()
    assert found(sweep) == {"0_x", "1_x"}  # all that is known without the ledger


def test_a_killed_attempt_counts_where_it_began(tmp_path: Path) -> None:
    """Nobody wrote down when job 0 was killed: job 1 was running beside it, job 2 was run in between."""
    events = [(1, "running", "09:59"), (0, "running", "10:00"), (1, "finished", "11:00"), (2, "running", "11:00")]
    events += [(2, "finished", "12:00"), (0, "running", "13:00"), (0, "finished", "14:00")]
    sweep = sweep_of(tmp_path / "sweep", events, ("10:00", "14:00"), ("09:59", "11:00"), ("11:00", "12:00"))
    assert found(sweep, sweep) == {"0_x", "1_x"}


def test_their_speed_and_seconds_are_in_no_chart_and_the_page_says_so(tmp_path: Path) -> None:
    spans = {
        "normal": ("10:00", "11:00"),
        "kaiming": ("11:00", "12:00"),
        "xavier": ("13:00", "14:00"),
        "default": ("13:30", "15:00"),
    }
    for number, (init, (start, end)) in enumerate(spans.items()):
        speed = 50.0 + 10 * number
        run = run_at(tmp_path / init, at(start), at(end), init=init, gmacs=1.0 + number)
        text = (run / "metrics.csv").read_text().replace("50.0", str(speed)).replace("52.0", str(speed))
        (run / "metrics.csv").write_text(text)
    runs = read_runs(tmp_path)[0]
    (table,) = standings(runs)
    shared = beside_others(runs, [], NOW)
    assert {folder.name for folder in shared} == {"xavier", "default"}
    figures = tradeoffs(table, shared)
    for title, speeds in (
        ("Against training images a second, at equal epochs (2)", {50.0, 60.0}),
        ("Against GMACs an image, at equal seconds (4)", {1.0, 2.0}),
        ("Against GMACs an image, at equal epochs (2)", {1.0, 2.0, 3.0, 4.0}),
    ):
        figure = figures[title]
        assert figure is not None
        assert set(figure.data[1].x) == speeds  # type: ignore[union-attr]
    assert "Curves by time" in charts_of(table, shared)
    assert "Curves by time" not in charts_of(table, {run.folder for run in runs})
    told = "2 of 4 runs trained beside others on one machine, which slows all of them. Their speed and seconds are in no chart:"
    save_data(tmp_path, tmp_path.parent / "saved")
    for folder in (tmp_path, tmp_path.parent / "saved"):  # where hosts have no name
        page = write_report(folder)
        for text in (page.read_text(), page.with_suffix(".md").read_text()):
            assert told in text
            assert "of init=default; init=xavier." in text or "of init=xavier; init=default." in text
