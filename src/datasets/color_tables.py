"""The tables of class colours that copies of CamVid bring along."""

import csv
from pathlib import Path

from src.datasets.files import read_lines
from src.datasets.label_sets import UNMERGED
from src.datasets.label_tables import CAMVID32
from src.datasets.labels import DESCRIBE
from src.errors import DataError

COLOR_TABLES = ("class_dict.csv", "label_colors.txt")


def check_color_tables(root: Path, labels: str) -> None:
    """Raises DataError if a table of colours beside the data speaks of other classes than `labels` means."""
    if labels == "index":  # no colour is read
        return
    table = read_color_table(root)
    if labels == "camvid11" and any("class_11" in row for row in table):
        raise DataError(
            f"{root / COLOR_TABLES[0]}: its column class_11 means {UNMERGED}. Use dataset.labels=camvid32, or take the"
            " column away to train on the usual merge"
        )
    known = {c.name: c.color for c in CAMVID32}
    for row in table:
        name, color = row["name"], (int(row["r"]), int(row["g"]), int(row["b"]))
        if known.get(name, color) != color:
            raise DataError(
                f"{root}: its colour table shows {name} as {color}, the release as {known[name]};"
                f" name its classes and colours {DESCRIBE}"
            )


def read_color_table(root: Path) -> list[dict[str, str]]:
    """The rows of class_dict.csv or label_colors.txt: name, r, g, b and more; empty where there is neither."""
    csv_file, text_file = (root / name for name in COLOR_TABLES)
    rows: list[dict[str, str]] = []
    if csv_file.is_file():
        rows = [{k.strip(): v.strip() for k, v in row.items() if k and v} for row in csv.DictReader(read_lines(csv_file))]
    elif text_file.is_file():
        rows = [dict(zip(("r", "g", "b", "name"), line.split(), strict=False)) for line in read_lines(text_file)]
    for row in rows:
        if not {"name", "r", "g", "b"} <= row.keys() or not all(row[k].isdecimal() for k in "rgb"):
            raise DataError(f"{root}: a row of its colour table is {list(row.values())}; needed are a name and red, green, blue")
    return rows
