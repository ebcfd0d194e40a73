"""Finished runs side by side: `python -m src.runs WORD`, or `frame("outputs")`, a table of pandas."""

from src.runs.listing import frame as frame
