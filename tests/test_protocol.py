"""What a score must share with another to be ranked with it."""

import hashlib
import json
from pathlib import Path

import pytest
from made_runs import make_run

from src.build import build_part
from src.composing import prepare
from src.datasets.reader import SegmentationDataset
from src.durable import sha256
from src.protocol import complete_protocol, describe_pretraining, describe_protocol, protocol_fingerprint
from src.runs.compare import differences
from src.studies.reading import read_runs
from src.studies.statistics.standing import standings


def val_of(overrides: list[str], *more: str) -> SegmentationDataset:
    _, config = prepare("config", [*overrides, *more])
    return build_part("dataset", config.dataset, split="val", augmentation=None, seed=0)


def test_it_says_all_that_decides_a_score(tiny_overrides: list[str]) -> None:
    data = val_of(tiny_overrides, "dataset.image_size=[16,16]")
    protocol = describe_protocol(data, "0123456789abcdef", "none")
    assert protocol == {
        "split": "val",
        "labels": [label.name for label in data.classes],
        "void": "left out",
        "absent_classes": "left out of the mean",
        "scored_size": [16, 16],
        "resize": "image bilinear, mask nearest at pixel centres",
        "scored_data": data.fingerprint,
        "training_data": "0123456789abcdef",
        "pretraining": "none",
    }


def test_full_size_is_another_protocol_unless_images_keep_their_size(tiny_overrides: list[str]) -> None:
    small, native = val_of(tiny_overrides, "dataset.image_size=[16,16]"), val_of(tiny_overrides)
    full = describe_protocol(small, "x", "none", "full")
    assert full["scored_size"] == "native"
    assert "logits bilinear" in full["resize"]
    assert describe_protocol(native, "x", "none", "full") == describe_protocol(native, "x", "none")


def test_every_part_tells_fingerprints_apart(tiny_overrides: list[str]) -> None:
    data, small = val_of(tiny_overrides), val_of(tiny_overrides, "dataset.image_size=[16,16]")
    merged = val_of(tiny_overrides, "dataset.labels=index", "dataset.num_classes=12", "dataset.class_names=[sky]")
    protocols = [
        describe_protocol(data, "x", "none"),
        describe_protocol(data, None, "none"),
        describe_protocol(data, "x", None),
        describe_protocol(small, "x", "none"),
        describe_protocol(small, "x", "none", "full"),
        describe_protocol(merged, "x", "none"),
        describe_protocol(data, "x", "none") | {"absent_classes": "0 where one is predicted"},
    ]
    assert len({protocol_fingerprint(protocol) for protocol in protocols}) == len(protocols)


def test_what_training_started_from(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    assert describe_pretraining(None, {}) == "none"
    assert describe_pretraining(str(weights), {}) == sha256(weights)
    assert describe_pretraining(str(tmp_path / "gone.pt"), {"pretraining": "abc"}) == "abc"
    assert describe_pretraining(str(tmp_path / "gone.pt"), {}) == "unknown"


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_where_samples_are_kept_changes_nothing(tiny_overrides: list[str], cache: str) -> None:
    assert describe_protocol(val_of(tiny_overrides, f"dataset.cache={cache}"), "x", "none") == describe_protocol(
        val_of(tiny_overrides), "x", "none"
    )


def test_scores_on_masks_of_another_resize_are_not_ranked_together(tiny_overrides: list[str]) -> None:
    sized = [*tiny_overrides, "dataset.image_size=[16,16]"]
    center, floor = val_of(sized), val_of(sized, "dataset.mask_resize=floor")
    protocols = [describe_protocol(data, "x", "none") for data in (center, floor)]
    assert {key for key in protocols[0] if protocols[0][key] != protocols[1][key]} == {"resize"}
    assert protocols[1]["resize"] == "image bilinear, mask nearest with coordinates rounded down"
    assert protocol_fingerprint(protocols[0]) != protocol_fingerprint(protocols[1])
    # where no mask is resized it is the same score
    assert describe_protocol(center, "x", "none", "full") == describe_protocol(floor, "x", "none", "full")
    native = val_of(tiny_overrides, "dataset.mask_resize=floor")
    assert describe_protocol(native, "x", "none") == describe_protocol(val_of(tiny_overrides), "x", "none")


def test_the_rule_for_absent_classes_leaves_older_scores_where_they_rank(tiny_overrides: list[str], tmp_path: Path) -> None:
    """The fingerprint of a protocol without the fact, as run folders have it: SHA-256 of its sorted JSON."""
    new = describe_protocol(val_of(tiny_overrides), "x", "none")
    old = {key: value for key, value in new.items() if key != "absent_classes"}
    stored = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:8]
    assert protocol_fingerprint(new) == protocol_fingerprint(old) == stored
    other = new | {"absent_classes": "0 where one is predicted"}
    assert protocol_fingerprint(other) != stored
    assert complete_protocol(old) == new
    assert complete_protocol(other) == other
    assert complete_protocol({}) == {}
    for number, (protocol, score) in enumerate(((old, 0.3), (new, 0.4), (other, 0.5))):
        facts = {"protocol": protocol, "protocol_fingerprint": stored if protocol is old else protocol_fingerprint(protocol)}
        make_run(tmp_path / "sweep" / str(number), score, seed=number, **facts)
    tables = standings(read_runs(tmp_path / "sweep")[0])
    assert [sorted(table.rows[0].scores.values()) for table in tables] in ([[0.3, 0.4], [0.5]], [[0.5], [0.3, 0.4]])
    assert differences(tables) == ["absent_classes differs"]
