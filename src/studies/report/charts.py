"""The charts of a report, by plotly, as JSON that plotly.js draws without a network."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from src.studies.reading import Run
from src.studies.report.tradeoffs import seconds_of, tradeoffs, without
from src.studies.statistics.claims import SEEDS_OF_INTERVAL, summarize
from src.studies.statistics.effects import followers, leaders, scores_of, varying
from src.studies.statistics.standing import Row, Table, short_keys

COLOURS = ("#4c78a8", "#e45756", "#54a24b", "#b279a2", "#f58518", "#72b7b2", "#9d755d", "#eeca3b", "#ff9da6", "#79706e")
HEIGHT, TALL = 420, 560  # pixels; the taller ones have long legends
CROWDED = 5  # lines


def charts_of(table: Table, shared: Collection[Path] = ()) -> dict[str, dict[str, Any]]:
    """Title and content of each chart that the rows can fill.

    Args:
        table: Rows that may be ranked together.
        shared: Folders of runs that trained beside others, whose seconds and speed are left out.
    """
    rows = [replace(row, words={key: escape(word, quote=False) for key, word in row.words.items()}) for row in table.rows]
    table = replace(table, rows=tuple(rows))  # plotly.js reads some HTML in labels, links too
    makers: dict[str, Callable[[Table], go.Figure | None]] = {
        "Every pair of values": heat_map,
        "Each key, the others held the same": marginal_effects,
        "Curves": curves,
        "Curves by time": lambda table: against_seconds(without(table, shared)),
    }
    found = {title: maker(table) for title, maker in makers.items()} | tradeoffs(table, shared)
    return {title: as_json(figure) for title, figure in found.items() if figure is not None}


def as_json(figure: go.Figure) -> dict[str, Any]:
    """What plotly.js draws, as JSON has it; colours of the page's text show through."""
    is_crowded = len(figure.data) > CROWDED  # type: ignore[arg-type]  # so that the legend takes many lines
    figure.update_layout(
        height=TALL if is_crowded else HEIGHT,
        margin={"l": 55, "r": 15, "t": 15, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7f7f7f", "size": 13},
        legend={"orientation": "h", "y": -0.28 if is_crowded else -0.2, "font": {"size": 11}},
        colorway=COLOURS,
    )
    figure.update_xaxes(gridcolor="rgba(127,127,127,.25)", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(127,127,127,.25)", zeroline=False)
    return json.loads(str(figure.to_json()))


Cell = tuple[str, str]
Setting = tuple[tuple[str, str], ...]


def heat_map(table: Table) -> go.Figure | None:
    """Mean score of the first two keys that vary, not always together; over equal settings of the others, or labelled.

    A cell that lacks these settings has the mean of its own, which stand in it; one of which seeds diverged has no mean.
    """
    keys, shown = leaders(table), short_keys(table.rows[0].words)
    if len(keys) < 2 or not any(row.runs for row in table.rows):
        return None
    down, across = keys[:2]
    names = [list(dict.fromkeys(row.words[key] for row in in_given_order(table))) for key in (down, across)]
    settings = settings_of_cells(table, down, across)
    equal = shared_settings(settings)
    means, told = [], []
    for d in names[0]:
        cells = [cell_of(settings, equal, (d, a), table, shown) for a in names[1]]
        means.append([value * table.measure.scale for value, _ in cells])
        told.append([text for _, text in cells])
    heat = go.Heatmap(z=means, x=names[1], y=names[0], text=told, texttemplate="%{text}", colorscale="Viridis")
    figure = go.Figure(heat)
    figure.update_xaxes(title=shown[across] + told_settings(equal, shown), type="category")
    figure.update_yaxes(title=shown[down], type="category")
    return figure


def settings_of_cells(table: Table, down: str, across: str) -> dict[Setting, dict[Cell, Row]]:
    """The rows by the setting of the other keys that vary, then by their cell."""
    moving = {*followers(table, down), *followers(table, across)}
    settings: dict[Setting, dict[Cell, Row]] = defaultdict(dict)
    for row in in_given_order(table):
        if row.runs or row.diverged:
            rest = tuple((key, row.words[key]) for key in varying(table) if key not in moving)
            settings[rest][row.words[down], row.words[across]] = row
    return settings


def shared_settings(settings: dict[Setting, dict[Cell, Row]]) -> list[Setting]:
    """Those that all cells have which the setting with most cells has."""
    most = max(settings.values(), key=len).keys()
    return [setting for setting, cells in settings.items() if most <= cells.keys()]


def cell_of(
    settings: dict[Setting, dict[Cell, Row]], equal: list[Setting], cell: Cell, table: Table, shown: dict[str, str]
) -> tuple[float, str]:
    """A cell's mean, NaN where it has none, and its text."""
    own = [setting for setting, cells in settings.items() if cell in cells]
    used = equal if set(equal) <= set(own) else own
    rows = [settings[setting][cell] for setting in used]
    if weak := [row for row in rows if row.diverged]:
        lost, begun = (sum(len(getattr(row, name)) for row in weak) for name in ("diverged", "begun"))
        return math.nan, f"{lost} of {begun} diverged"
    if not rows:
        return math.nan, ""
    value = fmean(row.best.mean for row in rows)
    return value, table.measure.number(value) + ("" if used is equal else told_settings(used, shown))


def told_settings(settings: list[Setting], shown: dict[str, str]) -> str:
    """A second line of a label: at which setting, or over how many; nothing where there are no other keys."""
    one = " ".join(f"{shown[key]}={word}" for key, word in settings[0])
    keys = ", ".join(shown[key] for key, _ in settings[0])
    return "" if not one else f"<br>at {one}" if len(settings) == 1 else f"<br>mean over {len(settings)} settings of {keys}"


def marginal_effects(table: Table) -> go.Figure | None:
    """Mean of each value of a key over the others' combinations that have all its values, with its interval over seeds.

    The interval ends where the range of the score does; of few seeds each is shown instead.
    """
    figure, measure, names = go.Figure(), table.measure, short_keys(table.rows[0].words)
    for number, key in enumerate(leaders(table)):
        scores, _ = scores_of(table, key)
        if not scores:
            continue
        values = [value for value in dict.fromkeys(row.words[key] for row in in_given_order(table)) if value in scores]
        summaries = [summarize(list(scores[value].values())) for value in values]
        bars = [
            (measure.clip(s.high) - s.mean, s.mean - measure.clip(s.low))
            if s.high is not None and s.low is not None and s.n >= SEEDS_OF_INTERVAL
            else (None, None)
            for s in summaries
        ]
        up, down = ([None if bar is None else bar * measure.scale for bar in side] for side in zip(*bars, strict=True))
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(
            x=values, y=[s.mean * measure.scale for s in summaries], error_y={"array": up, "arrayminus": down},
            mode="markers", marker={"size": 11, "color": colour}, name=names[key], legendgroup=key,
        )  # fmt: skip
        few = [(v, x) for v, s in zip(values, summaries, strict=True) if 1 < s.n < SEEDS_OF_INTERVAL for x in s.scores]
        if few:
            figure.add_scatter(
                x=[value for value, _ in few], y=[score * measure.scale for _, score in few], mode="markers",
                marker={"size": 7, "color": colour, "symbol": "line-ew-open"}, name=f"{names[key]}, each seed",
                legendgroup=key, showlegend=False,
            )  # fmt: skip
    if not figure.data:
        return None
    figure.update_xaxes(type="category")
    return figure.update_yaxes(title=table.measure.described.title)


def curves(table: Table) -> go.Figure | None:
    """The monitored score by epoch: a colour a row, a line a seed, dotted if it diverged; a click in the legend hides a row."""
    return lines(table, "epoch", lambda run: [row.get("epoch", math.nan) for row in run.rows])


def against_seconds(table: Table) -> go.Figure | None:
    """The same by seconds of training."""
    return lines(table, "seconds of training and validation", seconds_of)


def lines(table: Table, title: str, abscissa: Callable[[Run], list[float]]) -> go.Figure | None:
    """One line a run; None where no run has an epoch."""
    figure, scale = go.Figure(), table.measure.scale
    for number, row in enumerate(table.rows):
        for place, run in enumerate(run for run in row.runs + row.diverged if run.rows):
            what = f"{row.label}, seed {run.seed}{' (diverged)' * run.has_diverged}"
            figure.add_scatter(
                x=abscissa(run),
                y=[round(epoch.get(table.measure.tag, math.nan) * scale, 3) for epoch in run.rows],
                name=row.title,
                legendgroup=row.label,
                showlegend=place == 0,
                mode="lines",
                line={"color": COLOURS[number % len(COLOURS)], "width": 1.5, "dash": "dot" if run.has_diverged else "solid"},
                hovertemplate=f"{what}: %{{y:.2f}}<extra></extra>",
            )
    if not figure.data:
        return None
    figure.update_xaxes(title=title)
    return figure.update_yaxes(title=table.measure.described.title)


def in_given_order(table: Table) -> Sequence[Row]:
    """Rows in the order in which their runs were begun, as the study lists its values."""
    starts: dict[Path, datetime] = {}
    for run in (run for row in table.rows for run in row.begun):
        starts[run.folder.parent] = min(run.start, starts.get(run.folder.parent, run.start))
    return sorted(table.rows, key=lambda row: [(starts[run.folder.parent], *run_order(run)) for run in row.begun])


def run_order(run: Run) -> tuple[str, float]:
    """Folder of the sweep, and the job's number in it."""
    number = run.folder.name.partition("_")[0]
    return str(run.folder.parent), float(number) if number.isdigit() else math.inf
