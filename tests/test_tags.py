"""The list of tags: unit and direction of every score, and what may be monitored."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.build import build
from src.composing import prepare
from src.errors import ConfigError
from src.loop import EpochRecord, fit
from src.studies.statistics.sentences import Measure
from src.tags import describe_tag, find_tag
from src.train import check_point

CONTRACT = {  # DESIGN, section 4: unit and direction of each
    **dict.fromkeys(("train/loss", "val/loss"), ("", "min")),
    **dict.fromkeys(("train/pixel_accuracy", "val/miou", "val/pixel_accuracy", "val/class_accuracy"), ("points", "max")),
    **dict.fromkeys(("val/iou/Car", "val/iou/Bus / Truck", "val/accuracy_all_pixels"), ("points", "max")),
    **dict.fromkeys(("train/gradient_norm", "lr"), ("", None)),
    "time/epoch_seconds": ("s", "min"),
    "time/data_wait_share": ("points", "min"),
    "speed/images_per_second": ("images/s", "max"),
    "memory/peak_mib": ("MiB", "min"),
}
Words = list[str]


def test_every_tag_has_a_unit_and_a_direction() -> None:
    for name, expected in CONTRACT.items():
        tag = find_tag(name)
        assert tag is not None, name
        assert (tag.name, tag.unit, tag.mode) == (name, *expected)
        assert tag.meaning
    assert find_tag("val/iou/") is None
    assert find_tag("val/mio") is None


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        ("val/miou", 0.4567, "45.7 points"),
        ("val/iou/Car", 0.5, "50.0 points"),
        ("val/loss", 1.23456, "1.235 of val/loss"),
        ("speed/images_per_second", 45.0, "45.00 images/s"),
        ("time/epoch_seconds", 12.345, "12.35 s"),
        ("time/data_wait_share", 0.25, "25.0 points"),
        ("memory/peak_mib", 512.0, "512.00 MiB"),
        ("of/another_version", 0.5, "0.500 of of/another_version"),
    ],
)
def test_a_score_is_told_in_its_unit(tag: str, value: float, said: str) -> None:
    assert Measure(tag, "max").amount(value) == said


def test_every_score_of_a_run_is_in_the_list_and_within_its_range(tiny_overrides: Words) -> None:
    words = ["dataset.labels=index", "dataset.num_classes=12", "training.on_nonfinite=skip"]  # so that no tag is left out
    _, config = prepare("config", [*tiny_overrides, *words])
    experiment = build(config)
    *_, record = fit(experiment.state, experiment.setup, lambda state: state.epoch >= 1, 1, config.monitor)
    assert isinstance(record, EpochRecord)
    for name, value in record.scores.items():
        tag = find_tag(name)
        assert tag is not None, name
        assert np.isnan(value) or tag.low <= value <= tag.high, name
    assert len(record.scores) == 15 + 11  # and an IoU of each class


@pytest.mark.parametrize(("tag", "mode"), [("val/miou", "max"), ("val/loss", "min"), ("time/epoch_seconds", "min")])
def test_the_direction_comes_from_the_list_and_is_stored(tag: str, mode: str) -> None:
    launch, config = prepare("config", [f"monitor.tag={tag}"])
    typed, _ = prepare("config", [f"monitor.tag={tag}", f"monitor.mode={mode}"])
    assert config.monitor.mode == mode
    assert launch.config["monitor"] == {"tag": tag, "mode": mode}
    assert f"mode: {mode}" in launch.config_yaml
    assert typed.short_id == launch.short_id


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["monitor.tag=val/loss", "monitor.mode=max"],
            r"^monitor\.mode=max: lower is better for monitor\.tag=val/loss; use monitor.mode=null$",
        ),
        (["monitor.mode=min"], r"^monitor\.mode=min: higher is better for monitor\.tag=val/miou; use monitor.mode=null$"),
        (["monitor.tag=lr"], r"^monitor\.tag=lr: neither a high nor a low lr is better; choose another, such as val/miou$"),
        (["monitor.tag=lr", "monitor.mode=max"], r"^monitor\.tag=lr: neither a high nor a low lr is better"),
        (["monitor.tag=val/mio"], r"^monitor\.tag=val/mio: no such score, did you mean val/miou\?; there are train/loss, "),
    ],
)
def test_what_cannot_be_monitored_is_refused_in_one_line(words: Words, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        prepare("config", words)
    assert "\n" not in str(caught.value)


def change_masks(folder: Path, change: Callable[[np.ndarray], None]) -> None:
    for file in folder.glob("*.png"):
        mask = np.array(Image.open(file))
        change(mask)
        Image.fromarray(mask).save(file)


@pytest.mark.parametrize("trained", [build, check_point])
def test_a_class_without_a_pixel_in_val_is_not_monitored(
    trained: Callable[..., object], tiny_overrides: Words, tiny_data: Path
) -> None:
    """Val has Sky, Road, Car and void alone."""
    for tag in ("val/iou/Car", "val/iou/Road"):
        trained(prepare("config", [*tiny_overrides, f"monitor.tag={tag}"])[1])
    with pytest.raises(ConfigError, match=r"^monitor\.tag=val/iou/Fence: no pixel of Fence in val, so it has no value; choose "):
        trained(prepare("config", [*tiny_overrides, "monitor.tag=val/iou/Fence"])[1])
    with pytest.raises(ConfigError, match=r"^monitor\.tag=val/iou/car: no such score, did you mean val/iou/Car\?"):
        trained(prepare("config", [*tiny_overrides, "monitor.tag=val/iou/car"])[1])


def test_a_class_that_is_lost_in_resizing_has_no_pixel(tiny_overrides: Words, tiny_data: Path) -> None:
    """Of the halved mask only every other row and column is left; OpenCV's nearest at pixel centres takes the odd ones."""

    def one_fence(mask: np.ndarray) -> None:
        mask[0, 0] = 7

    change_masks(tiny_data / "valannot", one_fence)
    words = [*tiny_overrides, "monitor.tag=val/iou/Fence"]
    check_point(prepare("config", words)[1])
    with pytest.raises(ConfigError, match="no pixel of Fence in val"):
        check_point(prepare("config", [*words, "dataset.image_size=[12,16]"])[1])


@pytest.mark.parametrize("tag", ["val/miou", "val/pixel_accuracy", "val/class_accuracy"])
def test_a_val_split_whose_classes_are_lost_in_resizing_scores_nothing(tag: str, tiny_overrides: Words, tiny_data: Path) -> None:
    def void_but_one(mask: np.ndarray) -> None:
        mask[...] = 11
        mask[0, 0] = 4

    change_masks(tiny_data / "valannot", void_but_one)
    words = [*tiny_overrides, f"monitor.tag={tag}"]
    check_point(prepare("config", words)[1])
    with pytest.raises(ConfigError, match=rf"^monitor\.tag={tag}: no pixel of any class that it counts in val"):
        check_point(prepare("config", [*words, "dataset.image_size=[12,16]"])[1])


def test_a_tag_that_the_list_lacks_is_shown_as_it_is() -> None:
    tag = describe_tag("x/y")
    assert (tag.number(0.25), tag.title, tag.mode) == ("0.250", "x/y", None)
