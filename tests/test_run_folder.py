"""Folders that belong to one process alone, whatever their names and however that process ends."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.durable import write_json
from src.errors import ConfigError, UserError
from src.lock import is_locked
from src.redaction import Redactor
from src.run_folder import (
    Interrupted,
    Launch,
    RunFolder,
    claim_folder,
    end_dead_run,
    read_run,
    replace_text,
    short_hash,
    slug,
)

ROOT = Path(__file__).parent.parent


# --- names -----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300))
@example("")
@example("..")
@example("../../etc/passwd")
@example("/etc")
@example(".hidden")
@example("a" * 79 + "..b")
@example("-rf")
@example("a\x00b\n")
@example("C:\\temp\\..")
@example("ünïcode 名前")
def test_a_slug_is_a_safe_name_or_an_error(text: str) -> None:
    try:
        name = slug(text)
    except ConfigError:
        assert not re.search("[A-Za-z0-9_]", text)  # refused only where nothing is left to name it by
        return
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", name)
    assert ".." not in name
    assert name[-1] not in ".-"
    assert (Path("/outputs") / name).resolve().parent == Path("/outputs")
    assert slug(name) == name


@pytest.mark.parametrize(("text", "name"), [("my run", "my-run"), ("lr=0.1,momentum=0.9", "lr-0.1-momentum-0.9"), ("a/b", "a-b")])
def test_a_slug_resembles_the_text(text: str, name: str) -> None:
    assert slug(text) == name


def test_two_claims_in_one_second_give_two_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        folders = list(threads.map(lambda _: claim_folder(tmp_path / "name", "abcdef12"), range(2)))
    assert folders[0] != folders[1]
    assert set((tmp_path / "name").iterdir()) == set(folders)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_abcdef12", folder.name) for folder in folders)


def test_the_short_hash_depends_on_values_and_not_on_their_order() -> None:
    assert short_hash({"a": 1, "b": [1, 2]}) == short_hash({"b": [1, 2], "a": 1})
    assert short_hash({"a": 1, "b": [1, 2]}) != short_hash({"a": 1, "b": [2, 1]})
    assert re.fullmatch("[0-9a-f]{8}", short_hash({}))


# --- who works in it -------------------------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from pathlib import Path
from src.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
run.write(status="running")
if sys.argv[2] == "workers":  # as a loader's workers, which outlive a killed parent for seconds
    reads, writes = os.pipe()
    if os.fork() == 0:
        os.write(writes, b"!")
        time.sleep(20)
        os._exit(0)
    os.read(reads, 1)  # the worker is under way
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that works in tmp_path/run."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run"), getattr(request, "param", "alone")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "holds\n"
        yield process
        with contextlib.suppress(ProcessLookupError):  # the whole group is gone
            os.killpg(process.pid, signal.SIGKILL)


def test_a_second_process_is_refused(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert holder.poll() is None
    assert is_locked(tmp_path / "run")
    with pytest.raises(ConfigError, match="another process"):
        RunFolder(tmp_path / "run")
    end_dead_run(tmp_path / "run", "its process was killed")
    assert read_run(tmp_path / "run")["status"] == "running"


def test_who_only_looks_keeps_nobody_out(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run")._lock.close()
    with (tmp_path / "run" / ".lock").open("rb") as looker:  # as is_locked in another process, which is slow
        fcntl.flock(looker, fcntl.LOCK_SH)
        assert not is_locked(tmp_path / "run")
        with ThreadPoolExecutor(1) as threads:
            threads.submit(lambda: (time.sleep(0.2), fcntl.flock(looker, fcntl.LOCK_UN)))
            run = RunFolder(tmp_path / "run")
    assert is_locked(tmp_path / "run")
    run._lock.close()


@pytest.mark.parametrize("holder", ["alone", "workers"], indirect=True)
def test_a_killed_process_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert is_locked(tmp_path / "run")
    holder.kill()
    holder.wait()
    assert not is_locked(tmp_path / "run")
    end_dead_run(tmp_path / "run", "its process was killed")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["status"], facts["error"]) == ("failed", "its process was killed")
    assert facts["end"]
    run = RunFolder(tmp_path / "run", is_resumed=True)
    assert run.facts["status"] == "failed"
    run._lock.close()


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted"])
def test_a_run_that_said_how_it_ended_is_left_as_it_is(tmp_path: Path, status: str) -> None:
    text = json.dumps({"status": status, "end": "2026-01-01T00:00:00+00:00", "error": None})
    (tmp_path / "run.json").write_text(text)
    end_dead_run(tmp_path, "its process was killed")
    assert (tmp_path / "run.json").read_text() == text


# --- what it says of itself ------------------------------------------------------------------------------------------


def make_launch(redactor: Redactor | None = None) -> Launch:
    return Launch(
        command=["python", "-m", "src.train", "+api_token=hush-hush"],
        overrides=["+api_token=hush-hush"],
        folder=None,
        config={"api_token": "hush-hush", "seed": 0},
        stored={"api_token": "***", "seed": 0},
        config_yaml="api_token: '***'\nseed: 0\n",
        written_yaml="",
        short_id="abcdef12",
        redactor=redactor or Redactor(["+api_token=hush-hush"]),
    )


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, "finished", None),
        (Interrupted(15), "interrupted", "stopped by signal 15"),
        (KeyboardInterrupt(), "interrupted", "stopped from the keyboard"),
        (OSError("disk full, token hush-hush"), "failed", "OSError: disk full, token ***"),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
)
def test_run_json_says_how_the_run_stands(tmp_path: Path, error: BaseException | None, status: str, said: str | None) -> None:
    run = RunFolder(tmp_path / "run")

    def work() -> None:
        with run.running(make_launch(), {"parameters": 7}):
            assert read_run(run.path)["status"] == "running"
            assert read_run(run.path)["end"] is None
            if error is not None:
                raise error

    with pytest.raises(type(error)) if error else contextlib.nullcontext():
        work()
    facts = read_run(run.path)
    assert (facts["status"], facts["error"], facts["parameters"]) == (status, said, 7)
    assert facts["start"] <= facts["end"]
    written = "".join(file.read_text() for file in run.path.iterdir() if file.is_file())
    assert "hush-hush" not in written
    run._lock.close()


def test_a_resumed_run_keeps_its_first_start(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"start": "2026-01-01T00:00:00+00:00", "status": "interrupted"}))
    run = RunFolder(tmp_path, is_resumed=True)
    with run.running(make_launch(), {}):
        pass
    assert read_run(tmp_path)["start"] == "2026-01-01T00:00:00+00:00"
    run._lock.close()


def test_a_run_stays_mixed_once_it_went_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts at one run, each with what differs from the attempt before."""
    environment: dict[str, Any] = {"host": "a", "git_commit": "A", "git_dirty": False, "packages": {"torch": "2"}}
    facts: dict[str, Any] = {"device": "cpu", "precision": "fp32", "ranks": 1, "threads": 2}
    monkeypatch.setattr("src.environment.describe_environment", lambda: environment)

    def attempt(folder: Path, is_resumed: bool) -> bool:
        run = RunFolder(folder, is_resumed)
        with run.running(make_launch(), dict(facts)):
            pass
        run._lock.close()
        return read_run(folder)["mixed"]

    for number, change in enumerate(
        [
            *({"host": "b"}, {"git_commit": "B"}, {"git_dirty": True}, {"packages": {"torch": "3"}}),
            *({"device": "GPU"}, {"precision": "bf16"}, {"ranks": 2}, {"threads": 3}),
        ]
    ):
        folder, before = tmp_path / str(number), (environment, facts)
        assert [attempt(folder, is_resumed=n > 0) for n in range(2)] == [False, False]
        environment = environment | {key: change[key] for key in change if key in environment}
        facts = facts | {key: change[key] for key in change if key in facts}
        assert attempt(folder, is_resumed=True), change
        assert attempt(folder, is_resumed=True), change
        environment, facts = before
        assert attempt(folder, is_resumed=True), change
        assert not attempt(folder, is_resumed=False)  # begun anew, as nothing had been saved


def test_the_patch_stays_only_while_something_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = b"untracked: caf\xe9\n+password: hush-hush\n"  # as git gives it, for `git apply`
    monkeypatch.setattr("src.environment.uncommitted_changes", lambda: patch)
    run = RunFolder(tmp_path)
    for commit, is_dirty, is_there in (("A", True, True), (None, False, True), ("A", False, False)):  # None: git does not answer
        facts = {"git_commit": commit, "git_dirty": is_dirty}
        monkeypatch.setattr("src.environment.describe_environment", lambda facts=facts: facts)
        with run.running(make_launch(), {}):
            assert (tmp_path / "diff.patch").exists() is is_there
            assert not is_there or (tmp_path / "diff.patch").read_bytes() == patch
    run._lock.close()


def test_a_text_is_replaced_whole_and_leaves_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    replace_text(tmp_path / "file", "néw")
    assert (tmp_path / "file").read_bytes() == "néw".encode()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_lists_of_a_run_json_hold_nothing_that_json_has_no_word_for(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"overrides": ["dataset.root='a\udcff'"], "jobs": [{"planned": [float("nan"), 1.5]}]})
    found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert found == {"overrides": ["dataset.root='a?'"], "jobs": [{"planned": [None, 1.5]}]}


def test_a_lock_that_leads_out_of_the_folder_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match=r"\.lock: leads out of "):
        RunFolder(folder)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_scores_whose_row_is_lost_stay(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.facts |= {"epoch": 3, "best_epoch": 2, "final_scores": {"val/miou": 0.4}, "best_scores": {"val/miou": 0.5}}
    run.note_scores({"epoch": 3, "best_epoch": 2, "best_score": 0.5}, [{"epoch": 3, "val/miou": 0.4}])
    assert (run.facts["best_scores"], run.facts["final_scores"]) == ({"val/miou": 0.5}, {"val/miou": 0.4})
    run._lock.close()
