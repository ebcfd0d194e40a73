"""What a result was computed with: commit, packages, machine."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from src.durable import sha256
from src.escaping import clean

PACKAGES = (
    *("torch", "numpy", "hydra-core", "omegaconf", "albumentations", "opencv-python-headless", "pillow", "tensorboard"),
    "monai",  # whose networks and losses may be targets
)

GIT = ("git", "--no-optional-locks", "-C", str(Path(__file__).parent))
MAX_PATCH_BYTES = 2**20  # of the changes of tracked files
MAX_UNTRACKED = 1000  # files that are listed
MAX_HASHED_BYTES = 2**24  # of each whose SHA-256 is computed


def describe_environment() -> dict[str, Any]:
    """Facts for `run.json`; without a commit where git does not answer, and nobody knows whether something is not committed."""
    facts = {"host": socket.gethostname(), "process": os.getpid(), "packages": package_versions()}
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        changes = _git("status", "--porcelain", "-z", "--untracked-files=normal")
    except (OSError, subprocess.CalledProcessError):
        return facts | {"git_commit": None, "git_dirty": False}
    return facts | {"git_commit": commit, "git_dirty": bool(changes)}


def program(name: str | None = None) -> str:
    """This Python, or a program that lies beside it, as it is typed from here; the name alone where there is none."""
    path = Path(sys.executable) if name is None else Path(sys.executable).with_name(name)
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return str(near) if path.exists() else name or "python"


def package_versions() -> dict[str, str]:
    """Version of Python and of each package that changes results."""
    installed = {d.metadata["Name"].lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    return {"python": sys.version.split()[0]} | {name: installed[name] for name in PACKAGES if name in installed}


def uncommitted_changes() -> bytes:
    """What a run keeps as `diff.patch`: untracked files by name, size and SHA-256, then what `git apply` takes for tracked ones.

    Secrets are not looked for in it.
    """
    top = Path(os.fsdecode(_git("rev-parse", "--show-toplevel").removesuffix(b"\n")))
    names = _git("-C", str(top), "ls-files", "--others", "--exclude-standard", "-z").split(b"\0")[:-1]
    command = [*GIT, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "--binary", "HEAD"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        patch = process.stdout.read(MAX_PATCH_BYTES + 1)  # git ends once nobody reads on
    lines = [_describe_untracked(top, os.fsdecode(name)) for name in names[:MAX_UNTRACKED]]
    lines += [f"untracked: {len(names) - MAX_UNTRACKED} files more"] * (len(names) > MAX_UNTRACKED)
    lines += [f"cut: the patch is longer than {MAX_PATCH_BYTES} bytes, and its end is not here"] * (len(patch) > MAX_PATCH_BYTES)
    return "".join(f"{line}\n" for line in lines).encode() + patch[:MAX_PATCH_BYTES]


def _describe_untracked(top: Path, name: str) -> str:
    told = "untracked: " + clean(name).replace("\n", "?")
    with contextlib.suppress(OSError):  # not ours to read, or gone meanwhile
        status = (top / name).lstat()
        if stat.S_ISREG(status.st_mode):  # no link, and no other repository
            digest = sha256(top / name) if status.st_size <= MAX_HASHED_BYTES else "not computed"
            return f"{told}, {status.st_size} bytes, SHA-256 {digest}"
    return told


def _git(*words: str) -> bytes:
    return subprocess.run([*GIT, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
