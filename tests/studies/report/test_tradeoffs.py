"""Score against cost for one budget, and who is beaten by nobody."""

import itertools
import math
import random
from pathlib import Path

import pytest
from made_runs import make_run

from src.studies.reading import read_runs
from src.studies.report.tradeoffs import budgets, pareto, score_within, speed_of, tradeoffs
from src.studies.statistics.standing import standings


def with_epochs(folder: Path, scores: list[float], seconds: float, **more: object) -> None:
    run = make_run(folder, max(scores), **more)
    rows = [f"{epoch},{score},{seconds},{100 / seconds}" for epoch, score in enumerate(scores, start=1)]
    head = "epoch,val/miou,time/epoch_seconds,speed/images_per_second"
    (run / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")


@pytest.mark.parametrize("is_gain", [False, True])
@pytest.mark.parametrize("is_loss", [False, True])
def test_the_pareto_line_is_of_those_that_nobody_beats(is_gain: bool, is_loss: bool) -> None:
    chance = random.Random(0)
    for _ in range(50):
        points = [(float(chance.randint(1, 6)), chance.randint(1, 6) / 10) for _ in range(8)]
        better = (lambda a, b: a > b) if is_gain else (lambda a, b: a < b)
        higher = (lambda a, b: a < b) if is_loss else (lambda a, b: a > b)

        def beats(p: tuple[float, float], q: tuple[float, float], better=better, higher=higher) -> bool:
            no_worse = not better(q[0], p[0]) and not higher(q[1], p[1])
            return no_worse and (better(p[0], q[0]) or higher(p[1], q[1]))

        unbeaten = {q for q in points if not any(beats(p, q) for p in points)}
        line = pareto(points, is_gain, is_loss)
        assert set(line) == unbeaten
        assert all(better(a[0], b[0]) for a, b in itertools.pairwise(line))


def test_scores_are_of_equal_epochs_and_of_equal_seconds(tmp_path: Path) -> None:
    with_epochs(tmp_path / "a", [0.1, 0.2, 0.3, 0.5], 10.0, gmacs=1.0)
    with_epochs(tmp_path / "b", [0.4, 0.3], 30.0, init="kaiming", gmacs=2.0)
    (table,) = standings(read_runs(tmp_path)[0])
    epochs, seconds = budgets(table)
    assert (epochs.size, seconds.size) == (2, 40)
    rows = {row.values["model.init"]: row for row in table.rows}
    assert [score_within(rows[init], epochs, "val/miou", "max").mean for init in ("normal", "kaiming")] == [0.2, 0.4]
    assert [score_within(rows[init], seconds, "val/miou", "max").mean for init in ("normal", "kaiming")] == [0.5, 0.4]
    charts = tradeoffs(table)
    assert charts["Against parameters, at equal epochs (2)"] is None  # both have as many
    figure = charts["Against GMACs an image, at equal seconds (40)"]
    assert figure is not None
    assert sorted(zip(figure.data[1].x, figure.data[1].y, strict=True)) == [(1.0, 50.0), (2.0, 40.0)]  # type: ignore[union-attr]
    assert list(zip(figure.data[0].x, figure.data[0].y, strict=True)) == [(1.0, 50.0)]  # type: ignore[union-attr]
    assert charts["Against training images a second, at equal epochs (2)"] is not None


def test_seeds_are_a_mean_with_their_deviation(tmp_path: Path) -> None:
    with_epochs(tmp_path / "a", [0.1, 0.2], 10.0, gmacs=1.0)
    with_epochs(tmp_path / "b", [0.3, 0.4], 10.0, gmacs=1.0, seed=1)
    with_epochs(tmp_path / "c", [0.5, 0.6], 10.0, gmacs=2.0, init="kaiming")
    (table,) = standings(read_runs(tmp_path)[0])
    figure = tradeoffs(table)["Against GMACs an image, at equal epochs (2)"]
    assert figure is not None
    shown = figure.data[1]
    found = dict(zip(shown.x, zip(shown.y, shown.error_y.array, strict=True), strict=True))  # type: ignore[union-attr]
    assert found[1.0] == pytest.approx((30.0, 10 * math.sqrt(2)))
    assert found[2.0] == (60.0, 0.0)  # of one seed there is none


def test_a_run_without_an_epoch_in_the_budget_has_no_score(tmp_path: Path) -> None:
    with_epochs(tmp_path / "a", [0.1, 0.2], 10.0)
    with_epochs(tmp_path / "b", [0.4, 0.3], 30.0, init="kaiming")
    (table,) = standings(read_runs(tmp_path)[0])
    assert math.isnan(score_within(table.rows[0], budgets(table)[1], "val/miou", "max").mean)


@pytest.mark.parametrize("damaged", ["a", "b"])
def test_a_cell_without_a_number_counts_the_same_wherever_it_is(tmp_path: Path, damaged: str) -> None:
    for name, init in (("a", "normal"), ("b", "kaiming")):
        with_epochs(tmp_path / name, [0.1, 0.2, 0.3], 10.0, init=init)
        if name == damaged:
            lines = (tmp_path / name / "metrics.csv").read_text().splitlines()
            lines[1:] = ["1,0.1,,", "2,0.2,10.0,8.0", "3,0.3,10.0,10.0"]
            (tmp_path / name / "metrics.csv").write_text("\n".join(lines) + "\n")
    (table,) = standings(read_runs(tmp_path)[0])
    assert [budget.name for budget in budgets(table)] == ["epochs"]  # how many seconds one has had is not known
    assert {row.runs[0].folder.name: speed_of(row) for row in table.rows} == {"a": 10.0, "b": 10.0} | {damaged: 9.0}
