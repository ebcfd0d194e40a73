"""What TensorBoard reads: one file of events for each process that trained a run."""

import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from src.durable import GrowingFile

STAMP = re.compile(r"events\.out\.tfevents\.(\d+)\.")


MOST_WAITING = 2**26  # bytes that wait for room on a full disk; further pictures are left out, points and texts are small


class EventFile:
    """Scalars, pictures and texts, on the disk with each `flush`; no record is ever there in part.

    torch's own writer is not used: a full disk ends it for good, and leaves a torn record behind which nothing is read.

    Args:
        folder: The run's `tensorboard/`.
        purge_step: What was written of this step and later ones, by a process that was killed, is not shown.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        stamps = [int(found[1]) for file in folder.iterdir() if (found := STAMP.match(file.name))]
        stamp = max(int(time.time()), *(earlier + 1 for earlier in stamps), 0)  # files are read in the order of their names
        self._file = GrowingFile(folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}")
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"), purge_step)
        self._add(Event(session_log=SessionLog(status=SessionLog.START)), purge_step)

    def add_scalar(self, tag: str, value: float, step: int, meaning: str = "") -> None:
        """A point of a curve; TensorBoard shows beside the curve what it means."""
        content = summary.scalar(tag, value)
        content.value[0].metadata.summary_description = meaning
        self._add(Event(summary=content), step)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """A picture: uint8 [height, width, 3]; left out while too much waits for room on the disk."""
        if self._file.num_waiting < MOST_WAITING:
            self._add(Event(summary=summary.image(tag, image, dataformats="HWC")), step)

    def add_text(self, tag: str, text: str) -> None:
        """A text, in Markdown."""
        self._add(Event(summary=summary.text(tag, text)), 0)

    def add_summary(self, content: Any) -> None:
        """A `Summary` made elsewhere."""
        self._add(Event(summary=content), 0)

    def flush(self) -> None:
        """Writes what is not on the disk yet; raises OSError if it cannot, and a later call writes it then."""
        self._file.path.parent.mkdir(exist_ok=True)  # somebody may have removed it, but not the run's folder above it
        self._file.flush()

    def _add(self, event: Event, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        self._records.write(event.SerializeToString())
