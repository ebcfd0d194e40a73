"""Which folder a run goes on in, and when it may not."""

import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import write_split

from src import composing
from src.build import build
from src.checkpoint import Checkpoints
from src.cli import prepare
from src.config import RESULTS_VERSION, Config
from src.durable import write_json
from src.errors import ConfigError, UserError
from src.lock import is_locked
from src.ranks import Ranks
from src.resume import STATES, claim_run, find_previous
from src.run_folder import Launch, RunFolder, end_dead_run
from src.summary import describe
from src.train import start_or_resume


@pytest.mark.parametrize("saved", [True, False])
def test_a_folder_that_somebody_works_in_is_refused_before_anything_else(tmp_path: Path, saved: bool) -> None:
    folder = tmp_path / "run"
    _alive = RunFolder(folder)
    if saved:
        (folder / "checkpoints" / "last.pt").touch()
    launch, config = prepare("config", [f"training.resume='{folder}'"])
    with pytest.raises(ConfigError, match=r"another process is training in this folder; wait for it or use another$"):
        find_previous(config, launch)


def test_a_dead_run_that_another_process_corrects_is_no_living_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launch, config = prepare("config", ["name=x", "training.resume=auto"])
    folder = Path("outputs") / "x" / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").touch()
    facts = {"status": "running", "short_id": launch.short_id, "config": launch.config}
    (folder / "run.json").write_text(json.dumps(facts))
    correcting = threading.Event()

    def slow_disk(path: Path, facts: dict[str, Any]) -> None:
        correcting.set()
        time.sleep(1.0)
        write_json(path, facts)

    monkeypatch.setattr("src.run_folder.write_json", slow_disk)
    monkeypatch.setattr("src.lock.LOOK_SECONDS", 30.0)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(end_dead_run, folder, "its process was killed")
        correcting.wait(10)
        monkeypatch.setattr("src.run_folder.write_json", write_json)
        assert find_previous(config, launch) == folder
        run = RunFolder(folder, is_resumed=True)
    assert (run.facts["status"], run.facts["error"]) == ("failed", "its process was killed")
    run._lock.close()


def test_the_newest_run_is_the_last_to_start_whatever_the_clock_of_its_folder_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks were put back from 03:00 to 02:00 at 01:00 UTC: 02:30 is half past midnight, 02:10 is ten past one."""
    monkeypatch.chdir(tmp_path)
    launch, config = prepare("config", ["name=x", "training.resume=auto"])
    for name, start in (("02-30-00", "02:30:00+02:00"), ("02-10-00", "02:10:00+01:00"), ("09-00-00", "?")):
        folder = Path("outputs") / "x" / f"2026-10-25_{name}_{launch.short_id}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.pt").touch()
        facts = {
            "status": "interrupted",
            "short_id": launch.short_id,
            "config": launch.config,
            "results_version": RESULTS_VERSION,
        }
        (folder / "run.json").write_text(json.dumps(facts | {"start": f"2026-10-25T{start}"}))
    found = find_previous(config, launch)
    assert found is not None
    assert found.name.startswith("2026-10-25_02-10-00")


def test_a_damaged_run_json_is_told_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    launch, config = prepare("config", ["name=x", "training.resume=auto"])
    home, facts = (
        Path("outputs") / "x",
        json.dumps({"status": "failed", "short_id": launch.short_id, "results_version": 2, "config": launch.config}),
    )
    for name, text in (("run 1", facts), ("run 2", facts[:-9]), ("run 3", "[]")):
        (home / name / "checkpoints").mkdir(parents=True)
        (home / name / "checkpoints" / "last.pt").touch()
        (home / name / "run.json").write_text(text)
    assert find_previous(config, launch) == home / "run 1"
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[0] for line in told] == ["outputs/x/run 3/run.json", "outputs/x/run 2/run.json"]
    assert all(line.endswith("; it is passed over") for line in told)
    _, config = prepare("config", ["name=x", "training.resume='outputs/x/run 2'"])
    with pytest.raises(UserError, match=r"^outputs/x/run 2/run\.json: not readable as JSON"):
        find_previous(config, launch)


def test_a_sweep_is_no_run_to_go_on_with(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    launch, config = prepare("config", [f"training.resume='{tmp_path}'"])
    with pytest.raises(ConfigError, match=rf"a sweep; -m study\.resume={tmp_path} goes on with it"):
        find_previous(config, launch)


def test_asking_makes_no_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "nobody")
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_save_before_is_enough_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill may come after `last.pt` was put aside and before the new one took its place."""
    monkeypatch.chdir(tmp_path)
    launch, config = prepare("config", ["name=x", "training.resume=auto"])
    folder = Path("outputs") / "x" / "run"
    (folder / "checkpoints").mkdir(parents=True)
    facts = {"status": "failed", "short_id": launch.short_id, "config": launch.config}
    (folder / "run.json").write_text(json.dumps(facts))
    assert find_previous(config, launch) is None
    (folder / "checkpoints" / "last_previous.pt").touch()
    assert find_previous(config, launch) == folder


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, Launch, Config]:
    """A folder as hydra.run.dir, with the metrics of a run that was killed before its first save."""
    folder = tmp_path / "by hand"
    (folder / "checkpoints").mkdir(parents=True)
    launch, config = prepare("config", ["name=x", "training.resume=auto"])
    facts = {"status": "failed", "config": launch.config, "start": "once", "best_scores": {"val/miou": 0.5}, "failed_writes": 3}
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
    return folder, dataclasses.replace(launch, folder=folder), config


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("resume", ["auto", "the folder"])
def test_any_whole_state_is_enough_in_a_given_folder(given: tuple[Path, Launch, Config], name: str, resume: str) -> None:
    folder, launch, config = given
    config.training.resume = "auto" if resume == "auto" else str(folder)
    (folder / "checkpoints" / name).touch()
    assert find_previous(config, launch) == folder


def test_a_given_folder_without_a_state_begins_anew_with_no_old_facts(
    given: tuple[Path, Launch, Config], caplog: pytest.LogCaptureFixture
) -> None:
    folder, launch, config = given
    assert find_previous(config, launch) is None
    assert caplog.messages == [f"{folder}: no checkpoint to go on from; the run begins anew, and its metrics with it"]
    run = claim_run(config, launch, None)
    assert (run.path, run.facts) == (folder, {})
    run._lock.close()


def test_a_given_folder_with_another_or_a_finished_run_is_left_alone(given: tuple[Path, Launch, Config]) -> None:
    folder, launch, config = given
    facts = json.loads((folder / "run.json").read_text())
    for more, message in (
        ({"status": "finished"}, "by hand: a finished run without its checkpoints, which cannot go on; use another folder$"),
        ({"config": launch.config | {"seed": 7}}, r"by hand was trained with other values: seed \(7 there, 0 here\)"),
    ):
        (folder / "run.json").write_text(json.dumps(facts | more))
        with pytest.raises(ConfigError, match=message):
            find_previous(config, launch)


def test_checkpoints_without_a_run_json_are_refused_by_its_name(given: tuple[Path, Launch, Config]) -> None:
    folder, launch, config = given
    (folder / "run.json").unlink()
    assert find_previous(config, launch) is None
    (folder / "checkpoints" / "best.pt").touch()
    with pytest.raises(ConfigError, match=r"by hand: no run\.json there, which says what was trained; start a new run from"):
        find_previous(config, launch)


def test_a_run_does_not_go_on_with_other_data(
    tiny_overrides: list[str], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they lie may change, what they are may not."""
    monkeypatch.chdir(tmp_path)
    launch, config = prepare("config", [*tiny_overrides, "name=x", "training.resume=auto"])
    experiment = build(config)
    folder = tmp_path / "outputs" / "x" / "run"
    (folder / "checkpoints").mkdir(parents=True)
    facts = describe(config, experiment, {}) | {"status": "failed", "short_id": launch.short_id, "config": launch.config}
    (folder / "run.json").write_text(json.dumps(facts))
    with Checkpoints(folder / "checkpoints", None, 1) as checkpoints:
        checkpoints.save_last(experiment.state)
    moved = tiny_data.rename(tmp_path / "moved")
    launch, config = prepare("config", [*tiny_overrides, "name=x", "training.resume=auto", f"dataset.root='{moved}'"])
    run, _ = start_or_resume(config, launch, build(config), Ranks())
    assert run.path.samefile(folder)
    run._lock.close()
    write_split(moved, "val", 5, (24, 32), seed=1)
    with pytest.raises(ConfigError, match=r"/run was trained on other data: dataset\.root now holds other files for val \("):
        start_or_resume(config, launch, build(config), Ranks())
    assert not is_locked(folder)


def test_a_run_of_a_version_with_other_random_numbers_is_resumed_with_a_warning(
    given: tuple[Path, Launch, Config], caplog: pytest.LogCaptureFixture
) -> None:
    folder, launch, config = given
    (folder / "checkpoints" / "last.pt").touch()
    for version, warnings in ((RESULTS_VERSION, 0), (RESULTS_VERSION - 1, 1)):
        write_json(folder / "run.json", {"config": launch.config, "results_version": version})
        assert find_previous(config, launch) == folder
        assert len(caplog.messages) == warnings
    assert "drew other random numbers" in caplog.messages[0]


def test_a_run_of_a_version_with_another_mean_loss_is_not_resumed_by_its_loss(given: tuple[Path, Launch, Config]) -> None:
    """Its best loss would be compared with losses of another formula."""
    folder, _, _ = given
    (folder / "checkpoints" / "last.pt").touch()
    launch, config = prepare("config", ["name=x", f"training.resume='{folder}'", "monitor.tag=val/loss"])
    write_json(folder / "run.json", {"config": launch.config, "results_version": RESULTS_VERSION})
    assert find_previous(config, launch) == folder
    write_json(folder / "run.json", {"config": launch.config})  # as of the version before there was the key
    with pytest.raises(ConfigError, match=r"averaged monitor\.tag=val/loss in another way.*start a new run from model\.weights="):
        find_previous(config, launch)


def test_a_version_with_other_numbers_gives_runs_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [prepare("config", [])[0].short_id]
    monkeypatch.setattr(composing, "RESULTS_VERSION", RESULTS_VERSION + 1)
    ids.append(prepare("config", [])[0].short_id)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("rule", ["center", "floor"])
def test_a_run_from_before_there_was_a_choice_of_mask_resize(given: tuple[Path, Launch, Config], rule: str) -> None:
    """It had its masks resized at pixel centres: that is resumed, the other is refused."""
    folder, _, _ = given
    (folder / "checkpoints" / "last.pt").touch()
    launch, config = prepare("config", ["name=x", f"training.resume='{folder}'", f"dataset.mask_resize={rule}"])
    old = json.loads(json.dumps(launch.config))
    del old["dataset"]["mask_resize"]
    write_json(folder / "run.json", {"config": old, "results_version": RESULTS_VERSION})
    if rule == "center":
        assert find_previous(config, launch) == folder
        return
    with pytest.raises(ConfigError, match=r"trained with other values: dataset\.mask_resize \(center there, floor here\); give"):
        find_previous(config, launch)
