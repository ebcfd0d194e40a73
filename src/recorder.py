"""Writes what training yields: metrics files, TensorBoard, pictures."""

import csv
import io
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openpyxl import Workbook

from src import figures, hparams
from src.durable import GrowingFile, replace_text, write_durably
from src.errors import UserError
from src.events import EventFile
from src.loop import EpochRecord
from src.stored_files import read_bytes
from src.stored_json import EpochRow, parse_json
from src.tags import describe_tag

LOGGER = logging.getLogger("src")
Row = dict[str, Any]


class Recorder:
    """One row an epoch in `metrics.csv` and `metrics.jsonl`, the same as TensorBoard scalars, and pictures.

    A value that does not exist (the IoU of an absent class) is an empty cell, null, or no point. Where the disk is full, OSError
    is raised, nothing half-written is left, and rows and points wait for the next `write` or `flush`.

    Args:
        folder: The run's folder.
        classes: Name and colour of each scored class.
        ignore_index: Mask id that pictures show grey.
        finished_epochs: Rows after this epoch, left by a process that was killed, are dropped; a warning says which are missing.
    """

    def __init__(
        self, folder: Path, classes: Sequence[tuple[str, tuple[int, int, int]]], ignore_index: int, finished_epochs: int
    ) -> None:
        self.folder = folder
        self.classes = classes
        self.ignore_index = ignore_index
        self.colors = np.zeros((256, 3), np.uint8)
        self.colors[: len(classes)] = [color for _, color in classes]
        self.rows = [row for row in read_rows(folder) if row["epoch"] <= finished_epochs]
        if missing := sorted(set(range(1, finished_epochs + 1)) - {row["epoch"] for row in self.rows}):
            LOGGER.warning("%s: no row of epochs %s, which were trained", folder / "metrics.jsonl", missing)
        self._rewrite()
        self.lines, self.table = GrowingFile(folder / "metrics.jsonl"), GrowingFile(folder / "metrics.csv")
        self.tensorboard = EventFile(folder / "tensorboard", purge_step=finished_epochs + 1)

    def write_text(self, title: str, text: str) -> None:
        """A text in TensorBoard, shown as it is."""
        self.tensorboard.add_text(title, "    " + text.replace("\n", "\n    "))
        self.tensorboard.flush()

    def write_hparams(self, config: dict[str, Any], overrides: Sequence[str], monitored: str) -> None:
        """The run's row in TensorBoard's HPARAMS tab; see `hparams.row`. TensorBoard shows the first one of a run."""
        for content in hparams.row(config, overrides, monitored):
            self.tensorboard.add_summary(content)
        self.tensorboard.flush()

    def write(self, record: EpochRecord, monitored: str | None = None) -> None:
        """A row of scores; in TensorBoard too the best one so far of the tag `monitored`."""
        row: Row = {"epoch": record.epoch}
        row |= {tag: value if math.isfinite(value) else None for tag, value in record.scores.items()}
        self.rows.append(row)
        self.lines.write(as_lines([row]).encode())
        self.table.write(as_table([row], with_header=len(self.rows) == 1).encode())
        for tag, value in row.items():
            if tag != "epoch" and value is not None:
                self.tensorboard.add_scalar(tag, float(value), record.epoch, describe_tag(tag).meaning)
        if monitored is not None and record.is_best:
            self.tensorboard.add_scalar(hparams.best_tag(monitored), record.scores[monitored], record.epoch)
        self.flush()

    def flush(self) -> None:
        """Writes every row and point that is not on the disk yet."""
        for file in (self.lines, self.table, self.tensorboard):
            file.flush()

    def write_panels(self, epoch: int, images: np.ndarray, truths: np.ndarray, predictions: np.ndarray) -> None:
        """Image, truth, prediction and error of each image; arrays are uint8 [images, height, width(, 3)]."""
        rows = [
            figures.compose_panel(image, truth, prediction, self.ignore_index, self.colors)
            for image, truth, prediction in zip(images, truths, predictions, strict=True)
        ]
        for number, row in enumerate(rows):
            self.tensorboard.add_image(f"panel/{number}", row, epoch)
        self.tensorboard.flush()
        figures.save_rows(self.folder / "figures" / f"panels_epoch_{epoch:04d}.png", rows, figures.COLUMNS, self.classes)

    def write_attention(self, epoch: int, images: np.ndarray, maps: Sequence[np.ndarray], names: Sequence[str]) -> None:
        """What each gate let through: `maps` holds a float array [images, h, w] for each gate."""
        rows = [figures.compose_attention(image, [m[number] for m in maps]) for number, image in enumerate(images)]
        for number, row in enumerate(rows):
            self.tensorboard.add_image(f"attention/{number}", row, epoch)
        self.tensorboard.flush()
        figures.save_rows(self.folder / "figures" / f"attention_epoch_{epoch:04d}.png", rows, ["image", *names])

    def write_curves(self) -> None:
        """The curves of all rows so far."""
        if self.rows:
            figures.save_curves(self.folder / "figures" / "curves.png", self.rows)

    def close(self) -> None:
        """Writes what is left, the curves and the spreadsheet."""
        self.flush()
        self.write_curves()
        if self.rows:
            self._write_spreadsheet()

    def _rewrite(self) -> None:
        if self.rows:
            replace_text(self.folder / "metrics.jsonl", as_lines(self.rows))
            replace_text(self.folder / "metrics.csv", as_table(self.rows, with_header=True))
        else:
            for name in ("metrics.csv", "metrics.jsonl"):
                (self.folder / name).unlink(missing_ok=True)

    def _write_spreadsheet(self) -> None:
        book = Workbook(write_only=True)
        sheet = book.create_sheet("epochs")
        sheet.append(list(self.rows[0]))
        for row in self.rows:
            sheet.append(list(row.values()))
        content = io.BytesIO()
        book.save(content)
        write_durably(self.folder / "metrics.xlsx", lambda file: file.write(content.getvalue()))


def as_lines(rows: Sequence[Row]) -> str:
    """JSON, a line for each row."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_table(rows: Sequence[Row], with_header: bool) -> str:
    """CSV; the rows have the same columns."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]))
    if with_header:
        writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def read_rows(folder: Path) -> list[Row]:
    """The rows of a run's `metrics.jsonl`; a last line that was cut off by a kill is left out.

    Raises:
        UserError: If another line was damaged.
    """
    file = folder / "metrics.jsonl"
    lines = read_bytes(folder, file.name).split(b"\n")[:-1] if file.exists() else []
    try:
        rows = [parse_json(line, EpochRow, f"line {number}") for number, line in enumerate(lines, start=1)]
        if other := [number for number, row in enumerate(rows, start=1) if row.keys() != rows[0].keys()]:
            raise UserError(f"line {other[0]}: has other tags than line 1")
        return rows
    except UserError as error:
        raise UserError(f"{file}: damaged ({error}); mend or remove that line, or the file, and go on") from error
