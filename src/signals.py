"""Lets a run finish its step when it is asked to stop."""

import signal
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # USR1: Slurm's warning before it kills
ECHO = 1.0


class Interrupted(Exception):  # noqa: N818  it is no error
    """A signal asked the run to stop; it has saved what it had."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


class StopSignals:
    """While entered, the first signal is only noted; a later one ends the process at once.

    One that comes within ECHO seconds is the same wish: a terminal and torchrun both hand it on.

    Attributes:
        received: Number of the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since = 0.0

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._since = number, now
        elif now - self._since > ECHO:
            self._restore()
            if signal.getsignal(number) is signal.SIG_IGN:  # as a shell leaves it for what it starts in the background
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
