"""What a person sees while a run goes on; the same lines go to `train.log`."""

import contextlib
import logging
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from src.escaping import clean
from src.loop import EpochRecord, StepRecord
from src.redaction import Redactor
from src.stored_files import within

LOGGER = logging.getLogger("src")
QUIET_SECONDS = 30  # between lines about an epoch under way, where there is no terminal to draw a bar on


class LogFormatter(logging.Formatter):
    """Takes secrets out of messages and tracebacks, and what would steer the terminal."""

    def __init__(self, pattern: str, redactor: Redactor) -> None:
        super().__init__(pattern)
        self.redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return clean(self.redactor.text(super().format(record)))


class EarlyLines(logging.StreamHandler):
    """What is told before there is a `train.log`: shown on stderr at once, and kept for that log."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self.setFormatter(LogFormatter("%(message)s", redactor))
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Shows and keeps it."""
        super().emit(record)
        self.records.append(record)


def keep_early_lines(redactor: Redactor) -> None:
    """Until a `ProgressView` opens the log, which then begins with them."""
    LOGGER.addHandler(EarlyLines(redactor))


class AboveBar(logging.Handler):
    """Lines above a bar, each as long as it is: a command that is printed can be copied."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the line."""
        self.console.print(Text(self.format(record)), soft_wrap=True)


class ProgressView:
    """A bar on a terminal, else plain lines, for steps; one line for each epoch.

    Args:
        log_file: Receives every line, with the time.
        epochs: Of the whole run.
        redactor: Takes secrets out of what is shown.
    """

    def __init__(self, log_file: Path, epochs: int, redactor: Redactor) -> None:
        self.epochs = epochs
        self.console = Console(file=getattr(sys.stdout, "rich_proxied_file", sys.stdout))
        self.bar = _make_bar(self.console) if self.console.is_terminal else None
        self.task = self.bar.add_task("", total=1, speed="") if self.bar else None
        self.epoch_start = self.last_line = time.perf_counter()
        self.images_at_start: int | None = None
        self.step_at_start = 0
        self.loss = "not read yet"
        self._open_log(log_file, redactor)

    def __enter__(self) -> "ProgressView":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
        LOGGER.handlers.clear()
        with contextlib.suppress(OSError):
            self.file_handler.close()

    def step(self, record: StepRecord) -> None:
        """Shows how far the epoch is."""
        now = time.perf_counter()
        self.loss = self.loss if record.loss is None else f"{record.loss:.4f}"
        if self.images_at_start is None:  # the first step also pays for what is made once
            self.images_at_start, self.step_at_start, self.epoch_start = record.images, record.step, now
        speed = (record.images - self.images_at_start) / max(now - self.epoch_start, 1e-9)
        if self.bar and self.task is not None:
            total = self.epochs * record.num_steps
            done = (record.epoch - 1) * record.num_steps + record.step
            shown = f"epoch {record.epoch}/{self.epochs}"
            self.bar.update(
                self.task, description=shown, total=total, completed=done, speed=f"loss {self.loss}  {speed:.1f} images/s"
            )
        elif now - self.last_line > QUIET_SECONDS and record.step > self.step_at_start:
            left = (record.num_steps - record.step) * (now - self.epoch_start) / (record.step - self.step_at_start)
            LOGGER.info(
                "epoch %d/%d  step %d/%d  loss %s  %.1f images/s  %.0f s left of the epoch",
                *(record.epoch, self.epochs, record.step, record.num_steps, self.loss, speed, left),
            )
            self.last_line = now

    def epoch(self, record: EpochRecord) -> None:
        """One line of scores."""
        scores = record.scores
        absent = f"  (no pixel of {', '.join(record.absent)})" if record.absent else ""
        LOGGER.info(
            "epoch %d/%d  train loss %.4f  val loss %.4f  val mIoU %.4f  pixel accuracy %.4f  %.1f s  %.1f images/s%s%s",
            *(record.epoch, self.epochs, scores["train/loss"], scores["val/loss"], scores["val/miou"]),
            *(scores["val/pixel_accuracy"], scores["time/epoch_seconds"], scores["speed/images_per_second"]),
            "  best so far" if record.is_best else "",
            absent,
        )
        self.images_at_start, self.last_line = None, time.perf_counter()

    def _open_log(self, log_file: Path, redactor: Redactor) -> None:
        logging.raiseExceptions = False  # a full disk costs lines of the log, not a traceback for each
        LOGGER.setLevel(logging.DEBUG)
        LOGGER.propagate = False
        early = []
        for handler in list(LOGGER.handlers):
            early += handler.records if isinstance(handler, EarlyLines) else []
            LOGGER.removeHandler(handler)
        shown: logging.Handler = AboveBar(self.console) if self.bar else logging.StreamHandler(sys.stdout)
        shown.setLevel(logging.INFO)
        shown.setFormatter(LogFormatter("%(message)s", redactor))
        self.file_handler = logging.FileHandler(within(log_file.parent, log_file.name), encoding="utf-8")
        self.file_handler.setFormatter(LogFormatter("%(asctime)s %(message)s", redactor))
        for record in early:
            self.file_handler.handle(record)
        LOGGER.addHandler(shown)
        LOGGER.addHandler(self.file_handler)


def _make_bar(console: Console) -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[speed]}", TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
