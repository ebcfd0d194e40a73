"""Lets a run finish its step when it is asked to stop."""

import contextlib
import os
import signal
import time
from types import FrameType

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # before Slurm kills, as it is set by hand and as submitit sets it
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *WARNINGS)
ECHO = 1.0
NOTICE = b"\nstopping after this step; press again to stop now\n"
_entered: list["StopSignals"] = []


class Interrupted(Exception):  # noqa: N818  it is no error
    """A signal asked the run to stop; it has saved what it had."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


def received_signal() -> int:
    """Number of the signal that asked this process to stop, and that it has noted; or 0."""
    return max((stop.received for stop in _entered), default=0)


class StopSignals:
    """While entered, the first signal is only noted; one that came before ends the process at once.

    One that comes again within ECHO seconds is the same wish: a terminal and torchrun both hand it on. So is one of another
    kind, whenever it comes, and every TERM after the warning by USR1 or USR2: Slurm sends several, and kills when it must.

    Args:
        answers: Whether Ctrl-C is answered on stderr at once, since a step may take minutes.

    Attributes:
        received: Number of the signal that came, or 0.
    """

    def __init__(self, answers: bool = False) -> None:
        self.answers = answers
        self.received = 0
        self._seen: dict[int, float] = {}  # number of each that came, and when

    def __enter__(self) -> "StopSignals":
        _entered.append(self)
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        _entered.remove(self)
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        self.received = self.received or number
        if self.answers and number == signal.SIGINT and number not in self._seen:
            with contextlib.suppress(OSError):  # nobody reads any more: `| tee log` ends by the same Ctrl-C
                os.write(2, NOTICE)  # not print: the signal may have come in the middle of one
        is_of_slurm = number == signal.SIGTERM and self.received in WARNINGS
        if not is_of_slurm and now - self._seen.setdefault(number, now) > ECHO:
            self._restore()
            if signal.getsignal(number) is signal.SIG_IGN:  # as a shell leaves it for what it starts in the background
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
