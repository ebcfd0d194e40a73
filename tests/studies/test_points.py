"""The points of a sweep and the names of their folders."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import ConfigError
from src.studies.points import expand_points, is_sweep, job_name, varying_keys

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


def test_a_study_that_lists_nothing_is_one_point() -> None:
    assert expand_points(["seed=1"], {"question": "none"}) == [["seed=1"]]


@pytest.mark.parametrize("key", ["crosed", "points", "seed"])
def test_an_unknown_key_of_a_study_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"study\.{key}: no such key; allowed are question, crossed, seeds"):
        expand_points([], {"question": "which?", key: {}})


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
    expected = len(study.get("seeds") or [0])
    for values in (study.get("crossed") or {}).values():
        expected *= len(values)
    points = expand_points([], study)
    assert len({tuple(point) for point in points}) == len(points) == expected > 1


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
