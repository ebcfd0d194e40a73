"""What one key does by itself, against tests of scipy on the same means."""

import html
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import SCORES, make_run, make_sweep
from scipy import stats

from src.studies.reading import read_runs
from src.studies.report.charts import as_json, heat_map, marginal_effects
from src.studies.report.page import answer, write_report
from src.studies.statistics.effects import effects
from src.studies.statistics.standing import Table, short_value, standings


def table_of(folder: Path) -> Table:
    return standings(read_runs(folder)[0])[0]


def mean(*scores: tuple[float, ...]) -> list[float]:
    return [sum(seed) / len(seed) for seed in zip(*scores, strict=True)]


def test_each_key_is_compared_with_the_others_held_the_same(tmp_path: Path) -> None:
    init, channels = effects(table_of(make_sweep(tmp_path / "sweep")))  # the larger effect first
    assert (init.name, init.best, init.other, init.contexts) == ("init", "kaiming", "normal", 2)
    assert (channels.name, channels.best, channels.other, channels.contexts) == ("channels", "8-16", "4-8", 2)
    pairs = {
        "init": (mean(SCORES["kaiming", 4], SCORES["kaiming", 8]), mean(SCORES["normal", 4], SCORES["normal", 8])),
        "channels": (mean(SCORES["kaiming", 8], SCORES["normal", 8]), mean(SCORES["kaiming", 4], SCORES["normal", 4])),
    }
    p = {key: float(stats.ttest_rel(*pair)[1]) for key, pair in pairs.items()}
    for effect in (init, channels):
        first, second = pairs[effect.name]
        assert effect.claim.difference == pytest.approx(sum(first) / 3 - sum(second) / 3)
        assert effect.claim.p == pytest.approx(p[effect.name])
        assert effect.claim.family == 2
    low, high = sorted(p.values())
    assert sorted(effect.claim.adjusted_p or 0 for effect in (init, channels)) == pytest.approx([2 * low, max(2 * low, high)])


def test_only_contexts_that_have_every_value_count(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "sweep")
    for seed in range(3):  # a third width with one init alone, far better than all
        make_run(folder / f"{20 + seed}_x", 0.9, seed=seed, init="normal", channels=[16, 32])
    found = {(effect.name, effect.best, effect.other): effect for effect in effects(table_of(folder))}
    assert found["init", "kaiming", "normal"].contexts == 2
    assert found["channels", "16-32", "8-16"].contexts == 1
    assert found["channels", "16-32", "4-8"].claim.difference == pytest.approx(0.9 - 0.30)


def test_one_lost_run_does_not_silence_the_others(tmp_path: Path) -> None:
    """Of normal with the wide list one seed is left: init rests on the narrow list, with all of its seeds."""
    folder = make_sweep(tmp_path / "sweep")
    for run in read_runs(folder)[0]:
        if run.config["model.init"] == "normal" and run.config["model.channels"] == [8, 16] and run.seed:
            (run.folder / "run.json").write_text(json.dumps(run.facts | {"status": "failed"}))
    found = {effect.name: effect for effect in effects(table_of(folder))}
    assert (found["init"].contexts, found["channels"].contexts) == (1, 1)
    assert found["init"].claim.p == pytest.approx(stats.ttest_rel(SCORES["kaiming", 4], SCORES["normal", 4])[1])
    assert found["channels"].claim.p == pytest.approx(stats.ttest_rel(SCORES["kaiming", 8], SCORES["kaiming", 4])[1])


def with_parts(folder: Path, number: int, score: float, seed: int, **parts: dict[str, object]) -> None:
    """A run with these groups in its configuration, instead of or beside those that all made runs have."""
    run = make_run(folder / f"{number}_x", score, seed=seed)
    facts = json.loads((run / "run.json").read_text())
    facts["config"] |= parts
    (run / "run.json").write_text(json.dumps(facts))


def jitter(number: int) -> float:
    """Of the runs of a sweep whose three seeds follow each other: no mean is changed by it, but each seed's difference."""
    return 0.0005 * (number // 3 + 1) ** 2 % 0.004 * (1, -1, 0)[number % 3]


OWN_RATES = {"normal": (0.03, 0.30), "xavier": (0.1, 0.34), "kaiming": (0.1, 0.40)}  # rate, and score with the narrow list


def own_rates(folder: Path) -> Path:
    """As study=inits_at_own_rate lists it: init and rate together, crossed with two widths, the wider 0.05 ahead."""
    jobs = itertools.product(OWN_RATES.items(), (4, 8), range(3))
    for number, ((init, (rate, score)), width, seed) in enumerate(jobs):
        noise = 0.002 * seed + (0.003 if (init, seed) == ("kaiming", 1) else 0.0) + jitter(number)
        model = {"channels": [width, 2 * width], "init": init}
        with_parts(folder, number, score + 0.05 * (width == 8) + noise, seed, model=model, optimizer={"lr": rate})
    return folder


def test_a_key_that_moves_others_with_it_has_an_effect(tmp_path: Path) -> None:
    """The rate follows the init, though not the other way round, so that it is not held the same and has no effect of its own."""
    table = table_of(own_rates(tmp_path))
    found = effects(table)
    assert [(e.name, e.along, e.best, e.other, e.contexts) for e in found] == [
        ("init", ("lr",), "kaiming", "xavier", 2),
        ("init", ("lr",), "kaiming", "normal", 2),
        ("channels", (), "8-16", "4-8", 3),
    ]
    assert [e.claim.difference for e in found] == pytest.approx([0.061, 0.101, 0.05])  # kaiming's noise adds 0.003 / 3
    assert {e.claim.family for e in found} == {4}  # three pairs of inits, one of widths
    said = answer(table)
    assert "init (with lr) 10.1 points, channels 5.0 points" in said.sizes
    assert said.keys[0].endswith("Mean over 2 combinations of the other keys; moving with init: lr.")
    assert said.silent == []
    traces: list[Any] = list(marginal_effects(table).data)  # type: ignore[union-attr]
    assert [trace.name for trace in traces if trace.showlegend is None] == ["channels", "init"]
    seeds = next(trace for trace in traces if trace.name == "channels, each seed")  # three are shown, with no interval
    found = {width: [y for x, y in zip(seeds.x, seeds.y, strict=True) if x == width] for width in ("4-8", "8-16")}
    runs = read_runs(tmp_path)[0]
    for width, shown in found.items():
        scores = [
            [run.score for run in runs if run.seed == seed and short_value(run.config["model.channels"]) == width]
            for seed in range(3)
        ]
        assert shown == pytest.approx([100 * sum(of_seed) / 3 for of_seed in scores])
    assert {bar for trace in traces for bar in (trace.error_y.array or [None])} == {None}


def test_an_optimizer_and_its_arguments_have_one_effect(tmp_path: Path) -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    adamw = {"_target_": "torch.optim.AdamW", "lr": 0.001, "betas": [0.9, 0.999]}
    for number, (optimizer, init, seed) in enumerate(itertools.product((sgd, adamw), ("a", "b"), range(3))):
        score = 0.3 + 0.04 * (optimizer is adamw) + 0.01 * (init == "b") + 0.001 * seed
        with_parts(tmp_path, number, score, seed, model={"init": init}, optimizer=optimizer)
    table = table_of(tmp_path)
    optimizer, init = effects(table)
    assert (optimizer.name, optimizer.along) == ("optimizer", ("lr", "momentum", "betas"))
    assert (optimizer.best, optimizer.other, optimizer.contexts) == ("AdamW", "SGD", 2)
    assert (init.name, init.along, init.best, init.contexts) == ("init", (), "b", 2)
    assert (optimizer.claim.difference, init.claim.difference) == pytest.approx((0.04, 0.01))
    heat = heat_map(table)
    assert heat is not None
    assert {heat.layout.xaxis.title.text, heat.layout.yaxis.title.text} == {"optimizer", "init"}  # type: ignore[union-attr]


def test_one_list_of_points_is_told_by_its_rows(tmp_path: Path) -> None:
    for number, ((init, (rate, score)), seed) in enumerate(itertools.product(OWN_RATES.items(), range(3))):
        with_parts(tmp_path, number, score + 0.01 * seed, seed, model={"init": init}, optimizer={"lr": rate})
    table = table_of(tmp_path)
    assert effects(table) == []
    said = answer(table)
    assert (said.keys, said.silent) == ([], [])
    assert len(said.rows) == 2


def test_keys_without_an_effect_are_named_and_the_rows_are_shown(tmp_path: Path) -> None:
    """Only the loss is tried with each of the others' combinations, of which no init and no width has all of the other's."""
    points = [("n", 4), ("k", 4), ("n", 8), ("x", 16)]
    for number, ((init, width), loss, seed) in enumerate(itertools.product(points, range(2), range(3))):
        score = 0.3 + 0.01 * width + 0.002 * (init == "k") + 0.1 * loss + 0.001 * seed
        with_parts(tmp_path, number, score, seed, model={"init": init, "channels": [width]}, loss={"weight": loss})
    table = table_of(tmp_path)
    assert [(e.name, e.contexts) for e in effects(table)] == [("weight", 4)]
    said = answer(table)
    (silent,) = said.silent
    assert silent.startswith("Nothing can be said of init or channels alone: ")
    text = html.unescape(write_report(tmp_path).read_text()).partition('<div class="answer">')[2].partition("<details>")[0]
    assert silent in text
    assert all(row in text for row in said.rows[:4])


def test_one_seed_has_no_error_bar(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.3)
    make_run(tmp_path / "b", 0.4, init="kaiming")
    chart = marginal_effects(table_of(tmp_path))
    assert chart is not None
    (trace,) = chart.data  # type: ignore[misc]
    assert list(trace.error_y.array) == [None, None]  # type: ignore[union-attr]
    assert "[null,null]" in json.dumps(as_json(chart)).replace(" ", "")


def test_keys_that_end_alike_are_told_apart(tmp_path: Path) -> None:
    """Model and loss are both swept as `_target_`; their effects are made by hand."""
    models, losses = (
        ("src.models.attunet.AttU_Net", "src.models.unet.UNet"),
        ("src.losses.CrossEntropy", "torch.nn.CrossEntropyLoss"),
    )
    for number, (m, loss, seed) in enumerate(itertools.product(range(2), range(2), range(3))):
        score = 0.3 + 0.10 * m + 0.02 * loss + 0.001 * seed * (1 + m) + jitter(number)
        with_parts(tmp_path, number, score, seed, model={"_target_": models[m]}, loss={"_target_": losses[loss]})
    table = table_of(tmp_path)
    assert table.rows[0].label == "model=UNet loss=CrossEntropyLoss"
    model, loss = effects(table)
    assert (model.key, model.name, model.best, model.other) == ("model._target_", "model", "UNet", "AttU_Net")
    assert (loss.key, loss.name, loss.best, loss.other) == ("loss._target_", "loss", "CrossEntropyLoss", "CrossEntropy")
    assert (model.claim.difference, loss.claim.difference) == pytest.approx((0.101, 0.02))
    said = answer(table).keys
    assert [line.partition(" by ")[0] for line in said] == [
        "model=UNet beats model=AttU_Net",
        "loss=CrossEntropyLoss beats loss=CrossEntropy",
    ]


def test_a_value_that_diverged_where_others_trained_is_not_compared(tmp_path: Path) -> None:
    """With the high rate xavier diverges in two of three seeds: its low rate alone must not make it the best init."""
    points = itertools.product(("normal", "kaiming", "xavier"), (0.01, 0.1), (4, 8), range(3))
    for number, (init, rate, width, seed) in enumerate(points):
        score = 0.3 + 0.1 * (init == "kaiming") + 0.3 * (init == "xavier") + 0.01 * width + jitter(number) + 0.05 * (rate == 0.1)
        model = {"channels": [width, 8], "init": init}
        with_parts(tmp_path, number, score, seed, model=model, optimizer={"lr": rate})
        if (init, rate) == ("xavier", 0.1) and seed:
            file = tmp_path / f"{number}_x" / "run.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "failed", "error": "NonFiniteLossError: loss"}))
    table = table_of(tmp_path)
    found = {effect.name: effect for effect in effects(table)}
    assert set(found) == {"init", "channels"}  # of the rates one diverged, so that there is nothing to compare it with
    assert (found["init"].best, found["init"].other, found["init"].contexts) == ("kaiming", "normal", 4)
    assert found["init"].claim.difference == pytest.approx(0.1, abs=1e-3)
    assert found["channels"].contexts == 5  # where xavier diverged it did so with either width
    said = answer(table)
    assert [line.partition(" is compared")[0] for line in said.silent] == ["init=xavier", "lr=0.1"]
    assert all("4 of 6 seeds diverged where another value trained" in line for line in said.silent)
    assert "xavier" not in "".join(said.keys + said.more)
    assert said.lost == [f"channels={width} init=xavier lr=0.1: 2 of 3 seeds diverged." for width in ("8-8", "4-8")]


def test_the_heat_map_is_over_equal_settings(tmp_path: Path) -> None:
    """Normal is tried with a second rate, kaiming is not; orthogonal only with that one, so that its cells say so."""
    jobs = [(init, 0.1) for init in ("normal", "kaiming", "xavier")] + [("normal", 0.03), ("orthogonal", 0.03)]
    for number, ((init, rate), width, seed) in enumerate(itertools.product(jobs, (4, 8), range(2))):
        score = {"normal": 0.3, "kaiming": 0.4, "xavier": 0.5, "orthogonal": 0.6}[init] + 0.2 * (rate == 0.03) + 0.01 * seed
        with_parts(tmp_path, number, score, seed, model={"channels": [width], "init": init}, optimizer={"lr": rate})
    file = tmp_path / "9_x" / "run.json"  # xavier with the narrower list, seed 1
    facts = json.loads(file.read_text())
    assert (facts["config"]["model"], facts["config"]["seed"]) == ({"channels": [4], "init": "xavier"}, 1)
    file.write_text(json.dumps(facts | {"status": "failed", "error": "NonFiniteLossError: loss nan"}))
    heat = heat_map(table_of(tmp_path))
    assert heat is not None
    (cells,) = heat.data  # type: ignore[misc]
    assert (list(cells.y), list(cells.x)) == (["4", "8"], ["normal", "kaiming", "xavier", "orthogonal"])  # type: ignore[union-attr]
    assert heat.layout.xaxis.title.text == "init<br>at lr=0.1"  # type: ignore[union-attr]
    own = "80.5<br>at lr=0.03"
    assert [list(line) for line in cells.text] == [["30.5", "40.5", "1 of 2 diverged", own], ["30.5", "40.5", "50.5", own]]  # type: ignore[union-attr]


def test_intervals_are_drawn_within_the_possible(tmp_path: Path) -> None:
    """Of five seeds; the t interval of the first, by scipy, ends above one."""
    scores = {"normal": (0.97, 0.99, 0.85, 0.99, 0.98), "kaiming": (0.5, 0.51, 0.52, 0.49, 0.5)}
    for init, own in scores.items():
        for seed, score in enumerate(own):
            make_run(tmp_path / f"{init}_{seed}", score, seed=seed, init=init)
    interval = {init: stats.ttest_1samp(own, 0).confidence_interval(0.95) for init, own in scores.items()}
    mean_of = {init: sum(own) / 5 for init, own in scores.items()}
    assert interval["normal"].high > 1
    (trace,) = marginal_effects(table_of(tmp_path)).data  # type: ignore[union-attr, misc]
    up = dict(zip(trace.x, trace.error_y.array, strict=True))  # type: ignore[union-attr]
    down = dict(zip(trace.x, trace.error_y.arrayminus, strict=True))  # type: ignore[union-attr]
    assert up == pytest.approx({k: 100 * (min(1, i.high) - mean_of[k]) for k, i in interval.items()})
    assert down == pytest.approx({k: 100 * (mean_of[k] - i.low) for k, i in interval.items()})


def test_one_key_or_no_shared_context_says_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.3)
    make_run(tmp_path / "b", 0.4, init="kaiming")
    assert effects(table_of(tmp_path)) == []
    make_run(tmp_path / "c", 0.5, init="xavier", channels=[8, 16])
    assert effects(table_of(tmp_path)) == []
