"""What a job's child says on stderr, in real processes: heard at once, remembered, kept without secrets."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from src.run_folder import read_run
from src.studies.child import MOST_BYTES, Child
from src.studies.isolation import JobError, _how_it_ended, _supervise
from src.studies.ledger import Study, read_jobs, write_study

TALKER = "import sys, time; print('first', file=sys.stderr); time.sleep(60)"
ON_A_TERMINAL = """
import sys
from src.studies.child import Child
child = Child([sys.executable, "-c", "import os, sys; print(sys.stderr.isatty(), os.get_terminal_size(2), file=sys.stderr)"])
child.wait()
print(child.last_words(), end="")
"""
TOKEN = "s3cr3t-of-the-environment"


def test_it_is_heard_at_once_and_only_its_end_is_remembered(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child([sys.executable, "-c", TALKER])
    end, heard = time.monotonic() + 30, ""
    while "first" not in heard:
        assert time.monotonic() < end
        time.sleep(0.02)
        heard += capfd.readouterr().err
    assert child.poll() is None
    child.kill()
    assert child.wait() == -9
    assert child.last_words() == "first\n"

    many = f"import sys; [print('x' * 99, n, file=sys.stderr) for n in range({MOST_BYTES // 50})]"
    child = Child([sys.executable, "-c", many])
    assert child.wait() == 0
    shown = capfd.readouterr().err.splitlines()
    assert [line.split()[1] for line in shown] == [str(n) for n in range(MOST_BYTES // 50)]
    kept = child.last_words().splitlines()
    assert 0 < len(kept) < len(shown)
    assert kept == shown[-len(kept) :]


def test_whoever_holds_its_stderr_after_it_keeps_nobody_waiting() -> None:
    left_behind = (
        "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, file=sys.stderr)"
    )
    begin = time.monotonic()
    child = Child([sys.executable, "-c", left_behind])
    assert child.wait() == 0
    assert time.monotonic() - begin < 30
    os.kill(int(child.last_words()), 9)


def test_a_terminal_stays_one(tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True
    )
    os.close(theirs)
    assert done.stdout.startswith("True os.terminal_size(")
    assert os.read(mine, 1000).decode().strip() == done.stdout.strip()
    os.close(mine)


def test_a_child_that_had_no_folder_yet_leaves_its_words_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Something outside our code quotes the token; then the configuration is refused. An earlier attempt had been interrupted."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os, sys; print('with', os.environ['A_TOKEN'], file=sys.stderr)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{ROOT}")
    monkeypatch.setenv("A_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "sweep"
    jobs = [{"name": f"{n}_x", "overrides": [], "short_id": str(n)} for n in range(3)]
    for number in (1, 2):
        (sweep / f"{number}_x").mkdir(parents=True)
    earlier = {"status": "interrupted", "error": "stopped by signal 15", "process": 1}
    (sweep / "1_x" / "run.json").write_text(json.dumps(earlier))
    (sweep / "2_x" / "run.json").write_text(json.dumps(earlier | {"status": "running"}))
    (sweep / "1_x" / "train.log").write_text("of the first attempt\n")
    write_study(sweep, Study("x", None, [], {"tag": "val/miou", "mode": "max"}, "continue", {}, jobs))
    words = ["dataset.root=${oc.env:A_TOKEN}", "model.channels=[4,8]", "seed=-1"]
    for number, folder in enumerate(sweep / f"{number}_x" for number in range(3)):
        with pytest.raises(JobError, match=r"seed=-1"):
            _supervise([*words, f"hydra.run.dir='{folder}'"], folder, number, {"env": dict(os.environ)})
        log = (folder / "train.log").read_text().splitlines()
        said = capfd.readouterr().err.splitlines()
        assert said[0] == f"with {TOKEN}"  # the console's own
        assert log[-2:] == ["with ***", said[1]]
        assert said[1].startswith("error: seed=-1")
        assert said[2].startswith(f"job {number} failed: {folder.name}: seed=-1")
        assert f"; see sweep/{folder.name}/train.log" in said[2]
    assert [(job.status, str(job.error)[:7]) for job in read_jobs(sweep)] == [("failed", "seed=-1")] * 3
    assert read_run(sweep / "2_x")["error"] == "its process was killed"  # and so it was before the child began
    assert (sweep / "1_x" / "train.log").read_text().startswith("of the first attempt\n")
    assert not [file for file in sweep.rglob("*") if file.is_file() and TOKEN in file.read_text()]


def test_another_child_of_the_same_number_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """As in containers, each of which counts its processes from 1."""
    child = Child([sys.executable, "-c", "import sys; sys.exit('error: disk gone')"])
    child.wait()
    earlier = {"status": "interrupted", "error": "stopped by signal 15", "process": child.pid}
    (tmp_path / "run.json").write_text(json.dumps(earlier))
    assert _how_it_ended(child, tmp_path, earlier, []) == ("failed", "disk gone")
    assert _how_it_ended(child, tmp_path, {}, []) == ("interrupted", "stopped by signal 15")


def test_a_child_killed_before_it_said_a_word_has_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), getattr(signal, os.environ['BY']))")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    write_study(tmp_path, Study("x", None, [], {}, "continue", {}, [{"name": "0_x", "overrides": [], "short_id": "0"}]))
    for by, stands in (("SIGKILL", "failed"), ("SIGTERM", "interrupted")):  # a machine that is taken away is no failure
        with pytest.raises(JobError, match=by):
            _supervise([], tmp_path / "0_x", 0, {"env": os.environ | {"BY": by}})
        (job,) = read_jobs(tmp_path)
        assert (job.status, job.folder.exists()) == (stands, False)
        assert "train.log" not in capfd.readouterr().err
