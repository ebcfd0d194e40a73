"""What a run notes of its source."""

import ast
import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from src.environment import MAX_PATCH_BYTES, PACKAGES, package_versions
from src.targets import ALLOWED_PREFIXES

MODULES = {"hydra-core": "hydra", "opencv-python-headless": "cv2", "pillow": "PIL"}


def test_every_package_that_targets_may_come_from_is_noted() -> None:
    allowed = {prefix.partition(".")[0] for prefix in ALLOWED_PREFIXES} - {"src"}
    assert allowed <= set(PACKAGES)
    noted = package_versions()
    for name in PACKAGES:  # one that is not installed is no reason to fail
        assert (name in noted) == (find_spec(MODULES.get(name, name)) is not None), name


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with what environment.py needs, all of it committed."""
    there = tmp_path / "there"
    (there / "src").mkdir(parents=True)
    for name in ("__init__", "environment", "durable", "errors", "escaping"):
        (there / "src" / f"{name}.py").write_bytes((ROOT / "src" / f"{name}.py").read_bytes())
    run(there, "git", "init", "-q")
    run(there, "git", "add", ".")
    run(there, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    return there


def ask(there: Path, what: str = "uncommitted_changes()") -> Any:
    """What environment.py of that repository answers."""
    program = f"from src import environment; import sys; sys.stdout.buffer.write(ascii(environment.{what}).encode())"
    return ast.literal_eval(run(there, sys.executable, "-c", program))


def test_the_patch_gives_a_clone_what_was_changed(source: Path, tmp_path: Path) -> None:
    """Of tracked files, binary ones and such as are no UTF-8 too, applied as a person would; of others, only what they are."""
    (source / "conf").mkdir()
    (source / "conf" / "picture.png").write_bytes(b"before")
    run(source, "git", "add", ".")
    run(source, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "second")
    run(tmp_path, "git", "clone", "-q", str(source), "elsewhere")
    (source / "src" / "__init__.py").write_bytes(b"# caf\xe9\n")
    (source / "conf" / "picture.png").write_bytes(bytes(range(256)))
    (source / "conf" / "mine.yaml").write_text("password: hush-hush\n")
    (source / "conf" / "link").symlink_to("/etc/passwd")
    patch = ask(source)
    assert b"hush-hush" not in patch
    assert str(tmp_path).encode() not in patch
    digest = hashlib.sha256(b"password: hush-hush\n").hexdigest()
    assert patch.decode(errors="replace").splitlines()[:2] == [
        "untracked: conf/link",
        f"untracked: conf/mine.yaml, 20 bytes, SHA-256 {digest}",
    ]
    subprocess.run(["git", "apply"], cwd=tmp_path / "elsewhere", input=patch, check=True)
    for name in ("src/__init__.py", "conf/picture.png"):
        assert (tmp_path / "elsewhere" / name).read_bytes() == (source / name).read_bytes(), name


@pytest.mark.parametrize("name", ["conf/caf\u00e9.yaml", "a\nb \x1b[31m\udcff", '"quoted"'], ids=ascii)
def test_a_file_of_any_name_is_seen(source: Path, name: str) -> None:
    """git quotes such names where it is not asked for them as they are."""
    assert ask(source, "describe_environment()")["git_dirty"] is False
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("lr: 0.1\n")
    assert ask(source, "describe_environment()")["git_dirty"] is True
    (line,) = ask(source).decode().splitlines()
    assert line.endswith(f", 8 bytes, SHA-256 {hashlib.sha256(b'lr: 0.1' + bytes([10])).hexdigest()}")
    assert line.isprintable()
    if name.startswith("conf"):
        assert line.startswith(f"untracked: {name}, ")


def test_a_large_patch_is_cut_and_says_so(source: Path) -> None:
    (source / "src" / "__init__.py").write_text("# a line of code\n" * 200_000)
    for number in range(1003):
        (source / f"{number:04}").touch()
    head, _, patch = ask(source).partition(b"diff --git")
    assert len(patch) < MAX_PATCH_BYTES
    lines = head.decode().splitlines()
    assert len(lines) == 1002
    assert lines[0] == f"untracked: 0000, 0 bytes, SHA-256 {hashlib.sha256().hexdigest()}"
    assert lines[1000] == "untracked: 3 files more"
    assert lines[1001].startswith(f"cut: the patch is longer than {MAX_PATCH_BYTES} bytes")


def test_where_git_does_not_answer_nobody_knows(source: Path) -> None:
    (source / ".git" / "index").write_bytes(b"damaged")
    facts = ask(source, "describe_environment()")
    assert (facts["git_commit"], facts["git_dirty"]) == (None, False)
