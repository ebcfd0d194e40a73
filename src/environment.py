"""What a result was computed with: commit, packages, machine."""

import os
import shutil
import socket
import subprocess
import sys
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "numpy", "hydra-core", "omegaconf", "albumentations", "opencv-python-headless", "pillow", "tensorboard"),
    "monai",  # whose networks and losses may be targets
)

SECRET_FILES = (".env*", "*.pem", "*.key", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc")


def describe_environment() -> tuple[dict[str, Any], str]:
    """Facts for `run.json`, and the uncommitted changes of the source as a patch."""
    commit, patch = _git_state()
    facts = {"host": socket.gethostname(), "process": os.getpid(), "packages": package_versions()}
    return facts | {"git_commit": commit, "git_dirty": bool(patch)}, patch


def program(name: str | None = None) -> str:
    """This Python, or a program that lies beside it, as it is typed from here; the name alone where there is none."""
    path = Path(sys.executable) if name is None else Path(sys.executable).with_name(name)
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return str(near) if path.exists() else name or "python"


def package_versions() -> dict[str, str]:
    """Version of Python and of each package that changes results."""
    installed = {d.metadata["Name"].lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    return {"python": sys.version.split()[0]} | {name: installed[name] for name in PACKAGES if name in installed}


def _git_state() -> tuple[str | None, str]:
    """Commit and uncommitted changes of the source; (None, "") where there is no git."""
    if shutil.which("git") is None:
        return None, ""
    commit = _git("rev-parse", "HEAD").strip()
    if not commit:
        return None, ""
    patch = _git("diff", "--no-color", "--no-ext-diff", "--binary", "HEAD")
    top = _git("rev-parse", "--show-toplevel").strip()
    for file in _git("ls-files", "--others", "--exclude-standard", "--full-name", top).splitlines():
        if any(fnmatch(Path(file).name, pattern) for pattern in SECRET_FILES):
            patch = f"not shown, as such files hold secrets: {file}\n{patch}"  # git passes over what stands before a patch
            continue
        patch += _git("-C", top, "diff", "--no-color", "--no-ext-diff", "--no-index", "--binary", "/dev/null", file)
    return commit, patch


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=False, errors="replace"
    )
    return done.stdout if done.returncode in (0, 1) else ""  # 1: `diff --no-index` found what it looked for
