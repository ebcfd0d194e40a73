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

    def submit(self, name: str, job: Job) -> None:
        """Has `job` done after those that wait; it must not raise."""
        with self._changed:
            self._waiting.pop(name, None)  # the newer one queues behind the others
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
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                job = self._waiting.pop(next(iter(self._waiting)))
                self._busy = True
            try:
                job()
            except BaseException as error:  # a job should not raise; the thread goes on for those that wait
                self._error = error
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
