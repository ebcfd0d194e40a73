"""The points of a sweep and the names of their folders."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import ConfigError
from src.studies.points import expand_points, is_sweep, job_name, job_names, varying_keys

CONF = Path(__file__).parents[2] / "conf"
SAFE = re.compile(r"[A-Za-z0-9._-]{1,80}")


def test_without_listed_values_there_is_one_point() -> None:
    assert expand_points(["seed=3", "model=unet"], None) == [["seed=3", "model=unet"]]
    assert expand_points([], None) == [[]]


def test_listed_values_are_crossed_and_the_last_varies_fastest() -> None:
    assert expand_points(["model=attunet,unet", "name=x", "seed=0,1"], None) == [
        ["model=attunet", "name=x", "seed=0"],
        ["model=attunet", "name=x", "seed=1"],
        ["model=unet", "name=x", "seed=0"],
        ["model=unet", "name=x", "seed=1"],
    ]


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("model.channels=[4,8],[4,8,16]", ["[4,8]", "[4,8,16]"]),
        ("seed=range(3)", ["0", "1", "2"]),
        ("seed=range(1,8,3)", ["1", "4", "7"]),
        ("seed=choice(5,7)", ["5", "7"]),
        ("optimizer.lr=0.1,1e-3", ["0.1", "0.001"]),
        ("name='a b',c", ["'a b'", "c"]),
        ("threads=null,1", ["null", "1"]),
    ],
)
def test_ways_to_list_values(override: str, values: list[str]) -> None:
    key = override.partition("=")[0]
    assert is_sweep(override)
    assert expand_points([override], None) == [[f"{key}={value}"] for value in values]


@pytest.mark.parametrize("override", ["model.channels=[4,8]", "seed=1", "name='a,b'", "model=unet", "+optimizer.eps=1"])
def test_one_value_is_no_sweep(override: str) -> None:
    assert not is_sweep(override)
    assert expand_points([override], None) == [[override]]


@pytest.mark.parametrize("prefix", ["+", "++"])
def test_a_swept_key_that_is_added_stays_added(prefix: str) -> None:
    points = expand_points([f"{prefix}optimizer.dampening=0.1,0.2"], None)
    assert points == [[f"{prefix}optimizer.dampening=0.1"], [f"{prefix}optimizer.dampening=0.2"]]


def test_a_range_without_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("optimizer.lr=interval(0,1)") + ".*optimizer.lr=1,2"):
        expand_points(["optimizer.lr=interval(0,1)"], None)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("optimizer.lr=0.1,0.2", "optimizer.lr=0.3"),
        ("seed=range(3)", "seed=5"),
        ("seed=5", "seed=range(3)"),
        ("seed=0,1", "seed=0,1"),
        ("optimizer.eps=1,2", "+optimizer.eps=3"),
        ("model=unet,attunet", "model=unet"),
    ],
)
def test_one_key_twice_is_refused_by_both_words(first: str, second: str) -> None:
    with pytest.raises(ConfigError) as refused:
        expand_points([first, "threads=1", second], {"seeds": [0, 1]})
    assert str(refused.value) == f"{first} and {second}: the same key twice; a sweep takes one of them"


def test_of_fixed_values_the_last_counts_as_in_a_single_run() -> None:
    assert expand_points(["threads=1", "seed=0,1", "threads=2"], None) == [["threads=2", f"seed={seed}"] for seed in (0, 1)]


def test_words_that_nobody_can_read_are_told_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.lr=\[1: not of the form key=value"):
        expand_points(["seed=1,2", "optimizer.lr=[1"], None)


def test_a_study_crosses_its_lists_and_then_its_seeds() -> None:
    study = {"question": "which?", "crossed": {"model.init": ["normal", "kaiming"], "model.channels": ["[4,8]"]}, "seeds": [0, 7]}
    assert expand_points([], study) == [
        ["model.init=normal", "model.channels=[4,8]", "seed=0"],
        ["model.init=normal", "model.channels=[4,8]", "seed=7"],
        ["model.init=kaiming", "model.channels=[4,8]", "seed=0"],
        ["model.init=kaiming", "model.channels=[4,8]", "seed=7"],
    ]


def test_the_command_line_beats_the_study() -> None:
    study = {"crossed": {"model.init": ["normal", "kaiming"], "optimizer.lr": [0.1, 0.2]}, "seeds": [0, 1, 2]}
    points = expand_points(["model.init=xavier", "seed=5,6", "training.epochs=1"], study)
    assert [set(point) for point in points] == [
        {"model.init=xavier", f"optimizer.lr={lr}", f"seed={seed}", "training.epochs=1"} for lr in (0.1, 0.2) for seed in (5, 6)
    ]


def test_listed_points_and_paired_lists_are_combined_with_all_else() -> None:
    study = {
        "listed": [{"model.channels": [4, 8], "loader.batch_size": 16}, {"model.channels": "[32,64]"}],
        "paired": {"model.init": ["normal", "kaiming"], "optimizer.lr": [0.03, 0.1]},
        "crossed": {"threads": [None]},
        "seeds": [0, 1],
    }
    wide, narrow = ["model.channels=[32,64]"], ["model.channels=[4, 8]", "loader.batch_size=16"]
    normal, kaiming = ["model.init=normal", "optimizer.lr=0.03"], ["model.init=kaiming", "optimizer.lr=0.1"]
    expected = [
        [*width, *init, "threads=null", f"seed={seed}"]
        for width in (narrow, wide)
        for init in (normal, kaiming)
        for seed in (0, 1)
    ]
    points = expand_points([], study)
    assert points == expected
    assert job_names(points)[0] == "0_channels-4-8_batch_size-16_init-normal_lr-0.03_seed-0"
    assert job_names(points)[7] == "7_channels-32-64_init-kaiming_lr-0.1_seed-1"


def test_the_command_line_takes_its_keys_out_of_points_that_are_chosen_whole() -> None:
    study = {
        "listed": [{"model.init": "normal", "optimizer.lr": 0.03}, {"model.init": "kaiming", "optimizer.lr": 0.1}],
        "paired": {"threads": [1, 2]},
    }
    assert expand_points(["optimizer.lr=0.2", "threads=4"], study) == [
        ["model.init=normal", "optimizer.lr=0.2", "threads=4"],
        ["model.init=kaiming", "optimizer.lr=0.2", "threads=4"],
    ]


def test_points_that_differed_in_a_key_of_the_command_line_alone_become_one() -> None:
    rates = [{"model.init": "normal", "optimizer.lr": rate} for rate in (0.03, 0.1)]
    study = {"listed": [*rates, {"model.init": "kaiming", "optimizer.lr": 0.1}], "seeds": [0, 1]}
    assert expand_points(["optimizer.lr=0.2"], study) == [
        [f"model.init={init}", f"seed={seed}", "optimizer.lr=0.2"] for init in ("normal", "kaiming") for seed in (0, 1)
    ]
    assert expand_points(["+optimizer.lr=0.2,0.3"], {"listed": rates}) == [
        ["model.init=normal", "+optimizer.lr=0.2"],
        ["model.init=normal", "+optimizer.lr=0.3"],
    ]
    paired = {"paired": {"model.init": ["normal", "normal"], "optimizer.lr": [0.03, 0.1]}}
    assert expand_points(["optimizer.lr=0.2"], paired) == [["model.init=normal", "optimizer.lr=0.2"]]
    assert expand_points(["optimizer.lr=0.2"], {"listed": [{"optimizer.lr": 0.1}]}) == [["optimizer.lr=0.2"]]
    assert len(expand_points(["threads=1"], {"listed": [rates[0], rates[0]]})) == 2  # listed twice: refused, as ever


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"paired": {"model.init": ["normal", "kaiming"], "optimizer.lr": [0.1]}}, "model.init has 2, optimizer.lr has 1"),
        (
            {"paired": {"seed": [1]}, "crossed": {"seed": [2]}},
            "study: seed is given twice; a key stands in one of listed, paired",
        ),
        ({"listed": [{"+optimizer.eps": 1}], "paired": {"optimizer.eps": [1]}}, "study: optimizer.eps is given twice"),
        ({"crossed": {"seed": [1]}, "seeds": [1]}, "study: seed is given twice"),
        ({"listed": {"model.init": "normal"}}, "study.listed: {'model.init': 'normal'}; give a list"),
        ({"listed": ["model.init=normal"]}, "study.listed[0]: 'model.init=normal'; give keys and values"),
        ({"listed": [{"hydra.sweep.dir": "x"}]}, "study.listed[0].hydra.sweep.dir: a study sweeps keys of the configuration"),
        ({"paired": {"hydra.run.dir": ["x"]}}, "study.paired.hydra.run.dir: a study sweeps keys of the configuration"),
        ({"crossed": ["seed"]}, "study.crossed: ['seed']; give keys and values"),
        ({"crossed": {"seed": 3}}, "study.crossed.seed: 3; give a list, such as [3]"),
        ({"seeds": 3}, "study.seeds: 3; give a list"),
    ],
)
def test_a_study_of_another_form_is_refused_in_one_line(study: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand_points([], study)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_that_lists_nothing_is_one_point() -> None:
    assert expand_points(["seed=1"], {"question": "none"}) == [["seed=1"]]


@pytest.mark.parametrize("key", ["crosed", "points", "seed"])
def test_an_unknown_key_of_a_study_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"study\.{key}: no such key; allowed are question, listed, paired, crossed, seeds"):
        expand_points([], {"question": "which?", key: {}})


def test_a_study_file_without_its_first_line_is_told_so() -> None:
    """Hydra then puts all that it holds below `study`."""
    with pytest.raises(ConfigError, match=r"has to begin with the line '# @package _global_'$"):
        expand_points([], {"study": {"seeds": [0]}, "threads": 1})


@pytest.mark.parametrize("key", ["hydra.sweep.dir", "+hydra.job.env_set.X", "hydra/launcher", "~seed", "--config-dir", "a b"])
def test_a_study_sweeps_keys_of_the_configuration_alone(key: str) -> None:
    """Hydra's own say where runs go and what they start with, and a study may come from anywhere."""
    with pytest.raises(ConfigError, match=rf"^study\.crossed\.{re.escape(key)}: a study sweeps keys of the configuration"):
        expand_points([], {"crossed": {"seed": [1, 2], key: ["/elsewhere"]}})
    assert expand_points([], {"crossed": {"+model.gate/x": [1]}}) == [["+model.gate/x=1"]]


@pytest.mark.parametrize("file", sorted(CONF.glob("study/*.yaml")), ids=lambda file: file.stem)
def test_every_study_in_conf_has_its_number_of_distinct_points(file: Path) -> None:
    study: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["study"]
    assert study["question"].endswith("?")
    expected = len(study.get("seeds") or [0]) * len(study.get("listed") or [0])
    expected *= len(next(iter((study.get("paired") or {}).values()), [0]))
    for values in (study.get("crossed") or {}).values():
        expected *= len(values)
    points = expand_points([], study)
    assert len({tuple(point) for point in points}) == len(points) == expected > 1


def test_a_large_number_keeps_its_size_in_a_name() -> None:
    assert job_names([["optimizer.lr=1e+30"], ["optimizer.lr=1e-3"]]) == ["0_lr-1e30", "1_lr-1e-3"]


def test_a_job_is_named_after_what_varies() -> None:
    points = expand_points(["model.channels=[8,16,32],[4,8]", "model.init=normal,kaiming", "training.epochs=1"], None)
    keys = varying_keys(points)
    assert keys == ["model.channels", "model.init"]
    names = [job_name(point, keys) for point in points]
    assert names == [
        "channels-8-16-32_init-normal",
        "channels-8-16-32_init-kaiming",
        "channels-4-8_init-normal",
        "channels-4-8_init-kaiming",
    ]


@pytest.mark.parametrize("points", [[], [["seed=1"]], [["seed=1"], ["seed=1"]]])
def test_where_nothing_varies_no_key_does(points: list[list[str]]) -> None:
    assert varying_keys(points) == []
    assert job_name(["seed=1"], []) == "run"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b.c", "+d", "e/f@g"]), st.text(max_size=60)), max_size=4), st.booleans())
def test_a_job_name_is_safe_whatever_the_values(words: list[tuple[str, str]], all_vary: bool) -> None:
    point = [f"{key}={value}" for key, value in words]
    name = job_name(point, [key for key, _ in words] if all_vary else [])
    assert SAFE.fullmatch(name)
    assert not name.startswith((".", "-"))
    assert name.strip(".")
    assert ".." not in name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 99), min_size=2, max_size=5, unique=True))
def test_different_numbers_have_different_names(values: list[int]) -> None:
    points = expand_points([f"seed={','.join(map(str, values))}"], None)
    names = [job_name(point, ["seed"]) for point in points]
    assert names == [f"seed-{value}" for value in values]
