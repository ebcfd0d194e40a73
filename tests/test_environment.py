"""What a run notes of its source."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from conftest import ROOT

from src.environment import PACKAGES, package_versions
from src.targets import ALLOWED_PREFIXES

MODULES = {"hydra-core": "hydra", "opencv-python-headless": "cv2", "pillow": "PIL"}
PROGRAM = "from src.environment import describe_environment; print(describe_environment()[1], end='')"


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


def test_the_patch_gives_a_clone_what_was_not_committed(tmp_path: Path) -> None:
    """Changed files, new ones in folders, and binary ones, applied as a person would, elsewhere; but none that hold secrets."""
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
    secrets = [".env", ".env.local", "conf/server.pem", "deploy.key", "id_ed25519", ".netrc"]
    for name in secrets:
        (there / name).write_text("hush-hush\n")
    patch = run(there, sys.executable, "-c", PROGRAM)
    assert str(tmp_path) not in patch
    assert "hush-hush" not in patch
    assert all(f"not shown, as such files hold secrets: {name}\n" in patch for name in secrets)
    subprocess.run(["git", "apply"], cwd=elsewhere, input=patch, text=True, check=True)
    for name in ("src/__init__.py", "conf/model/mine.yaml", "conf/picture.png"):
        assert (elsewhere / name).read_bytes() == (there / name).read_bytes(), name
