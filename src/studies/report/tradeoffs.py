"""What a score costs: each configuration against its parameters, multiply-adds and speed, for one budget of training."""

import math
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import plotly.graph_objects as go

from src.studies.reading import Run
from src.studies.statistics.claims import Summary, summarize
from src.studies.statistics.sentences import Measure
from src.studies.statistics.standing import Row, Table

PER_SECOND = "speed/images_per_second"


@dataclass(frozen=True)
class Cost:
    """An axis: its title, a row's value (NaN: unknown), and whether more of it is better."""

    title: str
    of: Callable[[Row], float]
    is_gain: bool = False


@dataclass(frozen=True)
class Budget:
    """As much training as every run has had: its name, its size, and what each epoch of a run had spent at its end."""

    name: str
    size: float
    spent: Callable[[Run], list[float]]


def tradeoffs(table: Table, shared: Collection[Path] = ()) -> dict[str, go.Figure | None]:
    """Title and chart of each cost with each budget; None where it cannot be drawn.

    Args:
        table: Rows that may be ranked together; those of which seeds diverged are left out.
        shared: Folders of runs that trained beside others, whose seconds and speed are left out.
    """
    found, timed = {}, without(table, shared)
    for budget in budgets(table, timed):
        for cost in costs():
            of_time = cost.of is speed_of or budget.spent is seconds_of
            title = f"Against {cost.title}, at equal {budget.name} ({budget.size:,.0f})"
            found[title] = scatter(timed if of_time else table, cost, budget)
    return found


def without(table: Table, shared: Collection[Path]) -> Table:
    """The table with those rows alone of which no run trained beside others."""
    rows = [row for row in table.rows if not any(run.folder in shared for run in row.runs + row.diverged)]
    return replace(table, rows=tuple(rows), claims=())


def costs() -> list[Cost]:
    """The axes."""
    return [
        Cost("parameters", lambda row: _fact(row, "parameters")),
        Cost("GMACs an image", lambda row: _fact(row, "gmacs")),
        Cost("training images a second", speed_of, is_gain=True),
    ]


def budgets(table: Table, timed: Table | None = None) -> list[Budget]:
    """The epochs, and the seconds, that the run with fewest of them has; none where it is not known what a run has had.

    Rows of which seeds diverged take no part. Seconds are those of the table `timed`, where one is given.
    """
    found = []
    for name, spent, of in (("epochs", epochs_of, table), ("seconds", seconds_of, timed or table)):
        totals = [spent(run)[-1] for row in of.rows if not row.diverged for run in row.runs if run.rows]
        if totals and all(map(math.isfinite, totals)):
            found.append(Budget(name, min(totals), spent))
    return found


def score_within(row: Row, budget: Budget, tag: str, mode: str) -> Summary:
    """Over the seeds, the best score that each had within the budget; its mean is NaN if one had none, or diverged."""
    if row.diverged:
        return summarize([])
    choose, found = (min if mode == "min" else max), []
    for run in row.runs:
        spent = zip(run.rows, budget.spent(run), strict=True)
        scores = [epoch.get(tag, math.nan) for epoch, used in spent if used <= budget.size]
        found.append(choose((score for score in scores if math.isfinite(score)), default=math.nan))
    return summarize(found)


def scatter(table: Table, cost: Cost, budget: Budget) -> go.Figure | None:
    """Score of each row against its cost, with a deviation over its seeds, and the line of those that none beats in both."""
    measure = table.measure
    known = []
    for row in table.rows:
        score = score_within(row, budget, measure.tag, measure.mode)
        known.append((cost.of(row), score.mean * measure.scale, row.label, *deviation_bar(score, measure)))
    points = [point for point in known if math.isfinite(point[0]) and math.isfinite(point[1])]
    if len({point[0] for point in points}) < 2:
        return None
    front = pareto([point[:2] for point in points], cost.is_gain, measure.mode == "min")
    figure = go.Figure()
    figure.add_scatter(x=[p[0] for p in front], y=[p[1] for p in front], mode="lines", name="Pareto line", line={"dash": "dot"})
    figure.add_scatter(
        x=[p[0] for p in points], y=[p[1] for p in points], text=[p[2] for p in points], mode="markers", name="configurations",
        error_y={"array": [p[4] for p in points], "arrayminus": [p[3] for p in points], "thickness": 1, "width": 3},
        marker={"size": 10}, hovertemplate="%{text}: %{y:.2f} at %{x:,.4~g}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title=cost.title)
    cheapest, dearest = min(p[0] for p in points), max(p[0] for p in points)
    if dearest > 3 * cheapest:
        powers = range(math.floor(math.log10(cheapest)), math.ceil(math.log10(dearest)) + 1)
        figure.update_xaxes(type="log", tickvals=[m * 10.0**k for k in powers for m in (1, 2, 5)], tickformat=",.7~g")
    return figure.update_yaxes(title=f"{measure.described.title} ± deviation over seeds")


def deviation_bar(score: Summary, measure: Measure) -> tuple[float, float]:
    """How far a deviation reaches down and up from the mean, within the range of the score."""
    reach = score.deviation or 0.0
    low, high = measure.clip(score.mean - reach), measure.clip(score.mean + reach)
    return (score.mean - low) * measure.scale, (high - score.mean) * measure.scale


def pareto(points: Sequence[tuple[float, float]], is_gain: bool, is_loss: bool) -> list[tuple[float, float]]:
    """Those (cost, score) that no other beats in one without losing in the other, cheapest first."""
    front, best = [], -math.inf
    for cost, score in sorted(points, key=lambda p: (-p[0] if is_gain else p[0], p[1] if is_loss else -p[1])):
        worth = -score if is_loss else score
        if worth > best:
            best = worth
            front.append((cost, score))
    return front


def _fact(row: Row, key: str) -> float:
    return float(row.begun[0].facts.get(key) or math.nan)


def speed_of(row: Row) -> float:
    """Median over all epochs of its runs whose speed is known."""
    found = [speed for run in row.runs for epoch in run.rows if math.isfinite(speed := epoch.get(PER_SECOND, math.nan))]
    return statistics.median(found) if found else math.nan


def epochs_of(run: Run) -> list[float]:
    """Counted from 1."""
    return [epoch.get("epoch", math.nan) for epoch in run.rows]


def seconds_of(run: Run) -> list[float]:
    """Since the start, at the end of each epoch."""
    total, found = 0.0, []
    for epoch in run.rows:
        total += epoch.get("time/epoch_seconds", math.nan)
        found.append(round(total, 2))
    return found
