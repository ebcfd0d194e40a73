"""Writes to disk beside training."""

import threading
from collections.abc import Callable

Job = Callable[[], None]


class Writer:
    """A thread that does one job after another, so that no two writes cross.

    A job that has not begun when another of the same name comes is dropped: only the newest state is worth writing.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written and nothing waits."""
        with self._changed:
            return not self._busy and not self._waiting

    def submit(self, name: str, job: Job, is_urgent: bool = False) -> None:
        """Has `job` done, in the place of one of this name that waits; it must not raise.

        An urgent one comes before all others, but takes turns with them where it is submitted faster than they are done.
        """
        with self._changed:
            if is_urgent:
                self._waiting.pop(name, None)
                self._waiting = {name: job} | self._waiting
            else:
                self._waiting[name] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoint writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def finish(self) -> None:
        """Returns once all that was submitted is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not self._waiting)
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        name = ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                first, *others = self._waiting
                name = others[0] if others and first == name else first
                job = self._waiting.pop(name)
                self._busy = True
            try:
                job()
            except BaseException as error:  # a job should not raise; the thread goes on for those that wait
                self._error = error
            finally:
                del job  # it holds a whole state
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
