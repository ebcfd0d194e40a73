"""Which runs `best`, `SWEEP:top3` and folders mean."""

import json
import os
from pathlib import Path

import pytest

from src.errors import ConfigError
from src.studies.choosing import choose_runs
from src.studies.configurations import swept_keys
from src.studies.reading import Run, find_sweep


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_run(
    folder: str,
    score: float | None,
    end: str,
    fingerprint: str = "aaaaaaaa",
    mode: str = "max",
    status: str = "finished",
    **more: object,
) -> None:
    Path(folder).mkdir(parents=True)
    monitor = {"tag": "val/miou", "mode": mode}
    facts = {"status": status, "best_score": score, "end": end, "start": end, "protocol_fingerprint": fingerprint}
    (Path(folder) / "run.json").write_text(json.dumps(facts | {"config": {"monitor": monitor}} | more))


def chosen(wanted: str | list[str]) -> list[str]:
    return [str(folder) for folder in choose_runs(wanted)]


def test_the_best_is_the_best_of_those_that_can_be_ranked_with_the_newest() -> None:
    write_run("outputs/a/1", 0.5, "2026-01-01")
    write_run("outputs/a/2", 0.4, "2026-01-04")
    write_run("outputs/b/3", 0.9, "2026-01-02", fingerprint="bbbbbbbb")
    write_run("outputs/a/4", 0.8, "2026-01-03", status="failed")
    write_run("outputs/a/5", None, "2026-01-03")
    assert chosen("best") == ["outputs/a/1"]


def test_the_newest_is_the_last_to_end_in_whatever_time_zone() -> None:
    """02:30 in summer time is 00:30 UTC, 02:10 after the clocks were put back is 01:10 UTC."""
    write_run("outputs/a/1", 0.9, "2026-10-25T02:30:00+02:00", fingerprint="bbbbbbbb")
    write_run("outputs/a/2", 0.4, "2026-10-25T02:10:00+01:00")
    assert chosen("best") == ["outputs/a/2"]


def test_those_that_were_scored_differently_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_run(f"outputs/multirun/s/2026/{number}_x", 0.5, f"2026-01-0{number + 1}")
    assert capsys.readouterr().err == ""
    for number in range(3, 5):
        write_run(f"outputs/multirun/s/2026/{number}_x", 0.9, "2025-01-01", fingerprint="bbbbbbbb")
    for wanted in ("best", "s:top2"):
        chosen(wanted)
        told = "best by val/miou (max) of 3 runs scored this way; 2 others were scored differently"
        assert capsys.readouterr().err == f"run={wanted}: {told}\n"


def test_a_survivor_is_chosen_last(capsys: pytest.CaptureFixture[str]) -> None:
    """The other seed of its configuration diverged, though an older run of that very seed had not."""
    monitor = {"tag": "val/miou", "mode": "max"}
    steady, fragile = ({"monitor": monitor, "model": {"init": init}, "seed": 0} for init in ("normal", "kaiming"))
    write_run("outputs/multirun/s/2026/0_x", 0.4, "2026-01-01", config=steady)
    write_run("outputs/multirun/s/2026/1_x", 0.9, "2026-01-01", config=fragile)
    write_run("outputs/multirun/s/2026/2_x", 0.8, "2026-01-01", config=fragile | {"seed": 1})
    assert chosen("s:top1") == ["outputs/multirun/s/2026/1_x"]
    capsys.readouterr()
    diverged = {"config": fragile | {"seed": 1}, "error": "NonFiniteLossError: loss nan"}
    write_run("outputs/multirun/s/2026/3_x", 0.1, "2026-01-02", status="failed", **diverged)
    assert [Path(folder).name for folder in chosen("s:top3")] == ["0_x", "1_x", "2_x"]
    told = "2 of these ranked last, as other seeds of the same configuration diverged"
    assert capsys.readouterr().err == f"run=s:top3: {told}\n"


def test_less_is_better_where_the_run_says_so() -> None:
    for number, score in enumerate((0.5, 0.2, 0.9)):
        write_run(f"outputs/multirun/s/2026/{number}_x", score, f"2026-01-0{number + 1}", mode="min")
    assert chosen("s:top2") == ["outputs/multirun/s/2026/1_x", "outputs/multirun/s/2026/0_x"]


def test_a_sweep_by_name_or_folder_and_lists() -> None:
    for number, score in enumerate((0.5, 0.2, 0.9)):
        write_run(f"outputs/multirun/s/2026/{number}_x", score, f"2026-01-0{number + 1}")
    folders = ["outputs/multirun/s/2026/2_x", "outputs/multirun/s/2026/0_x", "outputs/multirun/s/2026/1_x"]
    assert chosen("s:top9") == chosen("outputs/multirun/s/2026:top3") == folders
    assert chosen([folders[2], "s:top1", folders[0]]) == [folders[2], folders[0]]


def test_the_newest_sweep_is_the_one_begun_last_whatever_was_written_since() -> None:
    for day in ("2026-01-01_10-00-00_ffffffff", "2026-01-02_10-00-00_00000000", "a sweep named by hand"):
        write_run(f"outputs/multirun/s/{day}/0_x", 0.5, "2026-01-01")
    for number, folder in enumerate(sorted(Path("outputs/multirun/s").iterdir())):
        os.utime(folder, (0, 10 - number))
    (Path("outputs/multirun/s/2026-01-01_10-00-00_ffffffff") / "report.html").write_text("a page, written today")
    assert find_sweep("s").name == "2026-01-02_10-00-00_00000000"
    assert chosen("s:top1") == ["outputs/multirun/s/2026-01-02_10-00-00_00000000/0_x"]


def test_the_newest_sweep_is_told_by_its_moment_not_by_the_text_of_its_folder() -> None:
    """Folders are named by local time: the clocks were put back between the two."""
    for day, created in (("2026-10-25_02-30-00_aaaaaaaa", "02:30:00+02:00"), ("2026-10-25_02-10-00_bbbbbbbb", "02:10:00+01:00")):
        write_run(f"outputs/multirun/s/{day}/0_x", 0.5, f"2026-10-25T{created}")
    assert find_sweep("s").name == "2026-10-25_02-10-00_bbbbbbbb"  # by the start of its runs
    for day, created in (("2026-10-25_02-30-00_aaaaaaaa", "2026-11-01T00:00:00+00:00"), ("2026-10-25_02-10-00_bbbbbbbb", "?")):
        Path(f"outputs/multirun/s/{day}/study.json").write_text(json.dumps({"created": created}))
    assert find_sweep("s").name == "2026-10-25_02-30-00_aaaaaaaa"


def test_runs_without_a_fingerprint_rank_with_themselves_alone() -> None:
    write_run("outputs/a/1", 0.9, "2026-01-01", fingerprint="")
    write_run("outputs/a/2", 0.1, "2026-01-02", fingerprint="")
    assert chosen("best") == ["outputs/a/2"]


@pytest.mark.parametrize("wanted", ["s", "outputs/multirun/s/first"])
def test_a_sweep_is_no_run(wanted: str) -> None:
    write_run("outputs/multirun/s/first/0_x", 0.5, "2026-01-01")
    Path("outputs/multirun/s/first/study.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"^run={wanted}: a sweep; give {wanted}:top1"):
        choose_runs(wanted)
    assert chosen(f"{wanted}:top1") == ["outputs/multirun/s/first/0_x"]


@pytest.mark.parametrize("wanted", ["best", "outputs/a", "s:top1", "outputs:top0", []])
def test_what_there_is_not_is_told(wanted: str | list[str]) -> None:
    Path("outputs/a").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"no run|no finished run|no such folder|top0 is none"):
        choose_runs(wanted)


def test_a_key_that_came_later_does_not_set_older_runs_apart() -> None:
    node = {"_target_": "src.datasets.camvid.CamVid", "image_size": [8, 8]}
    nodes = {"old": node, "new": node | {"mask_resize": "center"}, "floored": node | {"mask_resize": "floor"}}
    runs = {name: Run(Path(name), {"config": {"dataset": node}}) for name, node in nodes.items()}
    assert runs["old"].config == runs["new"].config
    assert swept_keys([runs["old"], runs["new"]]) == []
    assert swept_keys([runs["old"], runs["floored"]]) == ["dataset.mask_resize"]
