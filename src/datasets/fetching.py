"""Fetches a file over HTTP; a download that broke off goes on where it stopped."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from src.errors import DataError

ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; each later one waits twice as long
TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 16
MAX_BYTES = 2_000_000_000  # of a download
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)

Progress = Callable[[int, int | None], None]  # bytes so far, and in all where the server says


def fetch(url: str, file: Path, progress: Progress) -> None:
    """Fetches `url` into `file`, which appears whole; what came before a connection broke for good is kept for the next call.

    Args:
        url: http or https.
        file: Where to. `<file>.part` holds what came so far.
        progress: Called after each block.

    Raises:
        DataError: If the server cannot be reached, refuses, or sends too much.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url}: not an address that can be fetched; allowed are http and https")
    part = file.with_name(f"{file.name}.part")
    problem: Exception | None = None
    for attempt in range(1, ATTEMPTS + 1):
        try:
            fetch_rest(url, part, progress)
            part.rename(file)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
            problem = error
        except BROKEN as error:
            problem = error
        if attempt < ATTEMPTS:
            time.sleep(PAUSE * 2 ** (attempt - 1))
    raise DataError(f"{url}: {ATTEMPTS} attempts failed ({problem}); what has come is kept, run it again to go on")


def read_block(response: http.client.HTTPResponse) -> bytes:
    """The next bytes; any trouble of the network is a ConnectionError, which a full disk's OSError is not."""
    try:
        return response.read(BLOCK)
    except OSError as error:
        raise ConnectionError(str(error)) from error


def fetch_rest(url: str, file: Path, progress: Progress) -> None:
    """One attempt, from the end of what `file` holds; raises one of BROKEN if it does not come to the end."""
    tag_file = file.with_name(f"{file.name}.etag")  # so that the rest is not taken from another version
    done = file.stat().st_size if file.exists() and tag_file.exists() else 0
    headers = {"Range": f"bytes={done}-", "If-Range": tag_file.read_text()} if done else {}
    request = urllib.request.Request(url, headers=headers | {"User-Agent": "attunet-camvid"})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # it was whole, or is none of this
            error.close()
            file.unlink()
            raise ConnectionError("the server does not go on where it stopped") from error
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        tag_file.unlink(missing_ok=True)
        if etag := response.headers.get("ETag"):
            tag_file.write_text(etag)
        with file.open("ab" if done else "wb") as target:
            while block := read_block(response):
                done += len(block)
                if done > MAX_BYTES:
                    file.unlink()
                    raise DataError(f"{url}: sends more than {MAX_BYTES:,} bytes; is it the right address?")
                target.write(block)
                progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"it ended after {done} of {total} bytes")
    tag_file.unlink(missing_ok=True)
