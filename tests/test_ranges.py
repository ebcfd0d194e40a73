"""Numbers of a configuration: a bad one is refused in one line, before anything is made."""

import copy
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_split
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig

from src import composing
from src.composing import prepare
from src.config import RANGES, DoctorConfig, EvaluateConfig, check_doctor, check_evaluate
from src.config_errors import parse
from src.errors import ConfigError, UserError
from src.ranges import check_numbers
from src.resume import flatten
from src.stored_config import read_stored_config
from src.studies.sweep import budget_of
from src.train import check_point

OPTIONS = {
    "default": [],
    "cosine": ["model=unet", "optimizer=adamw", "scheduler=cosine_warmup", "loss=balanced_cross_entropy"],
}
VALUES = ["1", "0", "-1", "-0.0", str(10**40), "1e400", "nan", "true", "text"]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a run of tiny data; the working folder is one that is empty but for them."""
    for split in ("train", "val"):
        write_split(tmp_path / "data", split, 4, (16, 16))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    sizes = ["dataset.image_size=[16,16]", "model.channels=[4,8]", "loader.batch_size=2", "device=cpu", "threads=1"]
    return [f"dataset.root='{tmp_path / 'data'}'", *sizes]


@pytest.fixture
def _composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each list of options is composed once; further words are applied by Hydra as it does when it composes."""
    known: dict[str, DictConfig] = {}
    compose = composing.compose_config

    def composed(name: str, overrides: list[str]) -> DictConfig:
        base, more = overrides[:-1], overrides[-1:]
        if str(base) not in known:
            known[str(base)] = compose(name, base)
        config = copy.deepcopy(known[str(base)])
        ConfigLoaderImpl._apply_overrides_to_config(parse(more), config)
        return config

    monkeypatch.setattr(composing, "compose_config", composed)


def numbers_of(config: dict[str, Any]) -> dict[str, bool]:
    """Every key that holds a number, or a list of them, or has a range; whether it is a list."""
    found = {}
    for key, value in flatten(config).items():
        items = value if isinstance(value, list) else [value]
        is_number = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
        if (items and is_number) or key in RANGES:
            found[key] = isinstance(value, list)
    return found


@pytest.mark.usefixtures("_composed_once")
@pytest.mark.parametrize("options", OPTIONS)
def test_any_number_is_accepted_or_refused_in_one_line(words: list[str], options: str) -> None:
    base = [*words, *OPTIONS[options]]
    keys = numbers_of(prepare("config", [*base, "seed=1"])[0].config)
    assert {"seed", "model.channels", "optimizer.lr", "training.patience", "dataset.ignore_index"} <= keys.keys()
    wrong, accepted = [], 0
    for key, is_list in keys.items():
        for value in VALUES:
            word = f"{key}=[{value},{value}]" if is_list else f"{key}={value}"
            try:
                check_point(prepare("config", [*base, word])[1])
                accepted += 1
                if value in ("1e400", "nan", "true", "text", str(10**40)):
                    wrong.append(f"{word}: accepted")
            except UserError as error:
                if "\n" in str(error) or key.partition(".")[0] not in str(error):
                    wrong.append(f"{word}: {error}")
            except Exception as error:
                wrong.append(f"{word}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
    assert accepted > len(keys) / 2  # what is allowed is not refused with it
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=18446744073709551616", "seed=18446744073709551616; allowed are whole numbers from 0 to 4294967295"),
        ("seed=4294967296", "seed=4294967296; allowed are whole numbers from 0 to 4294967295"),
        ("threads=99999999999", "threads=99999999999; allowed are whole numbers from 1 to 1024"),
        ("model.channels=[4,99999999999]", "model.channels=[4, 99999999999]; allowed are whole numbers from 1 to 65536"),
        ("model.channels=[4,8.5]", "model.channels=[4, 8.5]; allowed are whole numbers from 1 to 65536"),
        (
            "dataset.image_size=[1000000,1000000]",
            "dataset.image_size=[1000000, 1000000]; allowed are whole numbers from 1 to 16384",
        ),
        ("loader.num_workers=100000", "loader.num_workers=100000; allowed are whole numbers from 0 to 256"),
        ("optimizer.lr=inf", "optimizer.lr=inf; allowed are numbers from 0 to 1e+38"),
        ("optimizer.lr=nan", "optimizer.lr=nan; allowed are numbers from 0 to 1e+38"),
        ("optimizer.momentum=1.5", "optimizer.momentum=1.5; allowed are numbers from 0 to 1"),
        ("training.checkpoint_seconds=-1", "training.checkpoint_seconds=-1.0; allowed are numbers from 0 to 1e+09"),
        ("training.checkpoint_seconds=inf", "training.checkpoint_seconds=inf; allowed are numbers from 0 to 1e+09"),
        ("scheduler.T_max=0", "scheduler.T_max=0; allowed are whole numbers from 1 to 1000000"),
        ("scheduler.T_max=true", "scheduler.T_max=True; allowed are whole numbers from 1 to 1000000"),
        ("+loss.label_smoothing=nan", "loss.label_smoothing=nan; allowed are numbers from -1e+18 to 1e+18"),
    ],
)
def test_a_number_outside_its_range_names_the_range(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare("config", [word])
    assert str(caught.value) == said


def test_numbers_below_a_key_with_a_range_have_that_range() -> None:
    dataset = {"classes": {"Road": [3, 4], "Car": 10**12}}
    with pytest.raises(ConfigError, match=r"^dataset\.classes\.Car=1000000000000; allowed are whole numbers from 0 to 16777216$"):
        check_doctor(DoctorConfig(strict=False, format="text", dataset=dataset))
    with pytest.raises(ConfigError, match=r"^study\.budget\.hours=inf; allowed are numbers from 0 to 1e\+06$"):
        check_numbers({"study": {"budget": {"hours": math.inf}}}, RANGES)


def test_the_ends_of_a_range_are_allowed() -> None:
    for word in ("seed=4294967295", "seed=0", "threads=1024", "loader.num_workers=256", "optimizer.momentum=1"):
        prepare("config", [word])


def test_the_largest_seed_starts_a_run(words: list[str]) -> None:
    from src.build import build

    build(prepare("config", [*words, "seed=4294967295"])[1])


def test_every_range_is_of_a_key_that_there_is() -> None:
    known = {"batch_size", "num_workers", "study.budget.hours", "dataset.classes", "dataset.void"}  # of evaluate, Folder, studies
    for file in Path(__file__).parent.parent.glob("conf/*/*.yaml"):
        known |= {f"{file.parent.name}.{key}" for key in yaml.safe_load(file.read_text())}
    known |= flatten(yaml.safe_load((Path(__file__).parent.parent / "conf" / "config.yaml").read_text())).keys()
    known |= {"optimizer.eps"}  # an argument of Adam
    assert RANGES.keys() <= known
    assert all(low < high and isinstance(low, int) == isinstance(high, int) for low, high in RANGES.values())


@pytest.mark.parametrize("key", ["batch_size", "num_workers", "threads"])
@pytest.mark.parametrize("value", [-1, 10**12])
def test_numbers_of_evaluate_have_ranges_too(key: str, value: int) -> None:
    whole: dict[str, Any] = {"run": "x", "split": "val", "size": "full", "checkpoint": "best", "root": None, "batch_size": None}
    whole |= {"num_workers": 0, "device": "cpu", "precision": None, "threads": None, "format": "text"}
    check_evaluate(EvaluateConfig(**whole))
    with pytest.raises(ConfigError, match=rf"^{key}={value}; allowed are whole numbers from \d to \d+$"):
        check_evaluate(dataclasses.replace(EvaluateConfig(**whole), **{key: value}))


def test_a_stored_configuration_is_held_to_the_ranges(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(prepare("config", words)[0].config_yaml.replace("- 8\n", "- 99999999999\n"))
    said = re.escape(f"{tmp_path / 'config.yaml'}: model.channels=[4, 99999999999]; allowed are whole numbers from 1 to 65536")
    with pytest.raises(ConfigError, match=f"^{said}$"):
        read_stored_config(tmp_path)


def test_more_levels_than_any_image_has_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^model: channels=.* and of 15 at most$"):
        check_point(prepare("config", [*words, f"model.channels={[4] * 16}".replace(" ", "")])[1])


def test_a_budget_of_no_hours_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^study\.budget="):
        budget_of({"budget": {"hours": 0}})
