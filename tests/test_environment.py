"""What a run notes of its source."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PROGRAM = "from src.environment import describe_environment; print(describe_environment()[1], end='')"


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_patch_gives_a_clone_what_was_not_committed(tmp_path: Path) -> None:
    """Changed files, new ones in folders, and binary ones, applied as a person would, elsewhere."""
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    (there / "src").mkdir(parents=True)
    for name in ("__init__.py", "environment.py"):
        (there / "src" / name).write_bytes((ROOT / "src" / name).read_bytes())
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    run(there, "git", "init", "-q")
    run(there, "git", "add", ".")
    run(there, "git", *identity, "commit", "-qm", "first")
    run(tmp_path, "git", "clone", "-q", str(there), str(elsewhere))
    (there / "src" / "__init__.py").write_text("# changed\n")
    (there / "conf" / "model").mkdir(parents=True)
    (there / "conf" / "model" / "mine.yaml").write_text("a: 1\n")
    (there / "conf" / "picture.png").write_bytes(bytes(range(256)))
    patch = run(there, sys.executable, "-c", PROGRAM)
    assert str(tmp_path) not in patch
    subprocess.run(["git", "apply"], cwd=elsewhere, input=patch, text=True, check=True)
    for name in ("src/__init__.py", "conf/model/mine.yaml", "conf/picture.png"):
        assert (elsewhere / name).read_bytes() == (there / name).read_bytes(), name
