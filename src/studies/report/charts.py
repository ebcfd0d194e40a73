"""The charts of a report, by plotly, as pieces of HTML that need no network."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import plotly.graph_objects as go
import plotly.io

from src.studies.reading import Run
from src.studies.report.tradeoffs import seconds_of, tradeoffs
from src.studies.statistics.claims import summarize
from src.studies.statistics.effects import leaders, scores_of
from src.studies.statistics.standing import Row, Table, short_keys

COLOURS = ("#4c78a8", "#e45756", "#54a24b", "#b279a2", "#f58518", "#72b7b2", "#9d755d", "#eeca3b", "#ff9da6", "#79706e")
HEIGHT, TALL = 420, 560  # pixels; the taller ones have long legends
CROWDED = 5  # lines


def charts_of(table: Table) -> dict[str, str]:
    """Title and HTML of each chart that the rows can fill."""
    makers: dict[str, Callable[[Table], go.Figure | None]] = {
        "Every pair of values": heat_map,
        "Each key, the others held the same": marginal_effects,
        "Curves": curves,
        "Curves by time": against_seconds,
    }
    found = {title: maker(table) for title, maker in makers.items()} | tradeoffs(table)
    return {title: as_html(figure) for title, figure in found.items() if figure is not None}


def as_html(figure: go.Figure) -> str:
    """A piece of a page that has plotly.js already; colours of the page's text show through."""
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
    return plotly.io.to_html(
        figure, full_html=False, include_plotlyjs=False, config={"responsive": True, "displayModeBar": False}
    )


def heat_map(table: Table) -> go.Figure | None:
    """Mean score of the first two keys that vary, not always together; over the others where there are more."""
    keys, shown = leaders(table), short_keys(table.rows[0].words)
    if len(keys) < 2:
        return None
    down, across = keys[:2]
    names = [list(dict.fromkeys(row.words[key] for row in in_given_order(table))) for key in (down, across)]
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in table.rows:
        cells[row.words[down], row.words[across]] += row.scores.values()
    scale = table.measure.scale
    means = [[mean(cells[d, a]) * scale for a in names[1]] for d in names[0]]
    told = [[table.measure.number(value / scale) if not math.isnan(value) else "" for value in line] for line in means]
    heat = go.Heatmap(z=means, x=names[1], y=names[0], text=told, texttemplate="%{text}", colorscale="Viridis")
    figure = go.Figure(heat)
    figure.update_xaxes(title=shown[across], type="category")
    figure.update_yaxes(title=shown[down], type="category")
    return figure


def marginal_effects(table: Table) -> go.Figure | None:
    """Mean of each value of a key over the others' combinations that have all its values, with its interval over seeds."""
    figure, scale, names = go.Figure(), table.measure.scale, short_keys(table.rows[0].words)
    for key in leaders(table):
        scores, _ = scores_of(table, key)
        if not scores:
            continue
        values = [value for value in dict.fromkeys(row.words[key] for row in in_given_order(table)) if value in scores]
        summaries = [summarize([score * scale for score in scores[value].values()]) for value in values]
        reach = [None if summary.high is None else summary.high - summary.mean for summary in summaries]  # one seed: no bar
        means = [summary.mean for summary in summaries]
        figure.add_scatter(x=values, y=means, error_y={"array": reach}, mode="markers", marker={"size": 11}, name=names[key])
    if not figure.data:
        return None
    figure.update_xaxes(type="category")
    return figure.update_yaxes(title=table.measure.described.title)


def curves(table: Table) -> go.Figure:
    """The monitored score by epoch: a colour a row, a line a seed; a click in the legend hides a row."""
    return lines(table, "epoch", lambda run: [row.get("epoch", math.nan) for row in run.rows])


def against_seconds(table: Table) -> go.Figure:
    """The same by seconds of training."""
    return lines(table, "seconds of training and validation", seconds_of)


def lines(table: Table, title: str, abscissa: Callable[[Run], list[float]]) -> go.Figure:
    """One line a run."""
    figure, scale = go.Figure(), table.measure.scale
    for number, row in enumerate(table.rows):
        for place, run in enumerate(row.runs):
            figure.add_scatter(
                x=abscissa(run),
                y=[round(epoch.get(table.measure.tag, math.nan) * scale, 3) for epoch in run.rows],
                name=row.label,
                legendgroup=row.label,
                showlegend=place == 0,
                mode="lines",
                line={"color": COLOURS[number % len(COLOURS)], "width": 1.5},
                hovertemplate=f"{row.label}, seed {run.seed}: %{{y:.2f}}<extra></extra>",
            )
    figure.update_xaxes(title=title)
    return figure.update_yaxes(title=table.measure.described.title)


def in_given_order(table: Table) -> Sequence[Row]:
    """Rows in the order in which their runs were begun, as the study lists its values."""
    return sorted(table.rows, key=lambda row: [run_order(run) for run in row.runs])


def run_order(run: Run) -> tuple[str, float]:
    """Folder of the sweep, and the job's number in it."""
    number = run.folder.name.partition("_")[0]
    return str(run.folder.parent), float(number) if number.isdigit() else math.inf


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return sum(values) / len(values) if values else math.nan
