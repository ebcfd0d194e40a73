"""What tests of real processes share: how one is started, waited for, and how it ended."""

import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import ROOT

Process = subprocess.Popen[str]
MEASURED = ("time/", "speed/", "memory/")  # tags that no two runs share


def start_process(home: Path, *command: str, **options: Any) -> Process:
    """`python COMMAND` with outputs/ and data/ under `home`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    pipes = {"stdin": pipe, "stdout": pipe, "stderr": pipe}
    return subprocess.Popen([sys.executable, *command], cwd=home, env=environment, text=True, **pipes, **options)


def wait_for(process: Process, line: str) -> str:
    """What it said up to this line."""
    assert process.stdout is not None
    said = ""
    for read in process.stdout:
        said += read
        if line in read:
            return said
    raise AssertionError(f"{line} was never said: {said} {process.communicate()[1]}")


def everyone(session: int) -> list[int]:
    """Every process of a session, by its leader's number, as Slurm or a container signals them; needs /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(entry.name))
    return found


def the_run(home: Path) -> Path:
    """The folder of the only run."""
    (file,) = home.glob("outputs/*/*/run.json")
    return file.parent


def the_end(process: Process, home: Path) -> tuple[str, dict[str, Any]]:
    """The one line that it ended with, and what its `run.json` says."""
    line = the_line(process)
    run = json.loads((the_run(home) / "run.json").read_text())
    assert run["status"] == "failed"
    assert run["error"].partition(": ")[2] in line
    return line, run


def the_line(process: Process) -> str:
    """The one line that it ended with."""
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert len(stderr.splitlines()) == 1, stderr
    return stderr.strip()


def repeatable_rows(folder: Path) -> list[dict[str, str]]:
    """Of `metrics.csv`, what two runs of the same configuration share."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{tag: value for tag, value in row.items() if not tag.startswith(MEASURED)} for row in csv.DictReader(file)]
