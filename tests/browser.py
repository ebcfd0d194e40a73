"""A headless Chromium, driven over WebDriver's plain HTTP on this machine alone."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
LACKING = "needs Chromium and chromedriver (Debian: chromium, chromium-driver)"


class Browser:
    """One window."""

    def __init__(self, address: str, size: tuple[int, int]) -> None:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={size[0]},{size[1]}"]
        wanted = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self.address = address
        self.session = ""
        self.session = self.ask("POST", "", {"capabilities": {"alwaysMatch": wanted}}, root="/session")["sessionId"]

    def ask(self, method: str, path: str, content: Any = None, root: str | None = None) -> Any:
        place = root if root is not None else f"/session/{self.session}{path}"
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.address + place, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()[:500]}") from error

    def open(self, address: str) -> float:
        """Seconds until the page is loaded."""
        begin = time.perf_counter()
        self.ask("POST", "/url", {"url": address})
        return time.perf_counter() - begin

    def run(self, script: str) -> Any:
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def move_to(self, x: float, y: float) -> None:
        steps = [{"type": "pointerMove", "duration": 50, "x": int(x) + step, "y": int(y)} for step in (0, 1, 2)]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self.ask("POST", "/actions", {"actions": [mouse]})

    def tell(self, command: str, **parameters: Any) -> Any:
        """Of Chromium's own protocol: media, sizes, printing."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self, kind: str) -> list[dict[str, Any]]:
        return self.ask("POST", "/se/log", {"type": kind})


@contextlib.contextmanager
def browser(size: tuple[int, int] = (1200, 900)) -> Iterator[Browser]:
    """A window that is closed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert DRIVER is not None
    process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    window = None
    try:
        end = time.monotonic() + 30
        while window is None:
            try:
                window = Browser(f"http://127.0.0.1:{port}", size)
            except OSError:
                assert time.monotonic() < end, "chromedriver does not answer"
                time.sleep(0.1)
        yield window
    finally:
        if window is not None:
            window.ask("DELETE", "")
        process.terminate()
        process.wait(30)
