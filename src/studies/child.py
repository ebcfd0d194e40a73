"""A process whose stderr is shown as it comes, and whose last words are remembered."""

import contextlib
import fcntl
import os
import pty
import re
import subprocess
import termios
import threading
import tty
from typing import Any

STDERR = 2  # the descriptor: where the process would have written to
MOST_BYTES = 2**16  # that are remembered
WAIT_SECONDS = 2.0  # for a pipe that processes may hold which the child has left behind
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n]*\r(?!\n)")  # colours, and a line that another was drawn over


class Child(subprocess.Popen[bytes]):
    """Shows what the process says at once: on a terminal, where its bars stay bars, or wherever stderr leads.

    Nothing of it is written down here, as it may hold a secret that the process did not know to be one.
    """

    def __init__(self, command: list[str], **options: Any) -> None:
        self._ear, mouth = _terminal() if os.isatty(STDERR) else os.pipe()
        self._said = b""
        try:
            super().__init__(command, stderr=mouth, **options)
        except BaseException:
            os.close(self._ear)
            raise
        finally:
            os.close(mouth)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended and all that it said is shown."""
        code = super().wait(timeout)
        self._listener.join(WAIT_SECONDS)
        return code

    def last_words(self) -> str:
        """The end of what it said."""
        said = self._said
        if len(said) == MOST_BYTES:
            said = said.partition(b"\n")[2]  # half a secret would not be known as one
        return CONTROL.sub("", said.decode(errors="replace").replace("\r\n", "\n"))

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # so a terminal says that nobody is left to write
            while chunk := os.read(self._ear, MOST_BYTES):
                self._said = (self._said + chunk)[-MOST_BYTES:]
                with contextlib.suppress(OSError):  # a console that is gone keeps no job from going on
                    os.write(STDERR, chunk)
        os.close(self._ear)


def _terminal() -> tuple[int, int]:
    """One like ours, which hands on every byte as it is: the end to read from, and the end to write to."""
    ear, mouth = pty.openpty()
    tty.setraw(mouth)
    fcntl.ioctl(mouth, termios.TIOCSWINSZ, fcntl.ioctl(STDERR, termios.TIOCGWINSZ, bytes(8)))
    return ear, mouth
