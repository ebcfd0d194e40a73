"""Evaluations on disk."""

import hashlib
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.errors import UserError
from src.stored_evaluations import Evaluation, evaluation_file, read_evaluation, write_evaluation


def made(images: int = 3) -> Evaluation:
    confusion = np.random.default_rng(0).integers(0, 2**40, (images, 4, 4))
    names = [f"vidéo_{number:03d}" for number in range(images)]
    facts = {
        **{"split": "val", "checkpoint": "best", "size": "training", "class_names": ["a", "b", "c"], "names": names},
        **{"scores": {"miou": 0.5}, "protocol": {"split": "val"}, "protocol_fingerprint": "01234567"},
    }
    return Evaluation(names, ["vidéo"] * images, confusion, facts)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    evaluation = made()
    file = write_evaluation(tmp_path, evaluation)
    assert file == tmp_path / "evaluations" / "val_best_training.json" == evaluation_file(tmp_path)
    again = read_evaluation(file)
    assert (again.names, again.sequences) == (evaluation.names, evaluation.sequences)
    assert again.facts == evaluation.facts | {"counts_sha256": hashlib.sha256(file.with_suffix(".npz").read_bytes()).hexdigest()}
    assert again.confusion.dtype == np.int64
    assert (again.confusion == evaluation.confusion).all()
    assert (again.scores, again.fingerprint, again.class_names) == ({"miou": 0.5}, "01234567", ["a", "b", "c"])


def test_the_bytes_do_not_know_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "evaluations" / f"val_best_training{ending}" for ending in (".json", ".npz")]
    write_evaluation(tmp_path, made())
    before = [file.read_bytes() for file in files]
    later = time.time() + 400_000_000
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "localtime", lambda _=None: time.gmtime(later))
    write_evaluation(tmp_path, made())
    assert [file.read_bytes() for file in files] == before
    with zipfile.ZipFile(files[1]) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_damage_is_told_in_one_line(tmp_path: Path) -> None:
    file = write_evaluation(tmp_path, made())
    good = [(path, path.read_bytes()) for path in (file, file.with_suffix(".npz"))]
    other = write_evaluation(tmp_path / "other", made(4)) if (tmp_path / "other").mkdir() is None else file
    cases = [
        (0, b"{"),
        (0, b"[]"),
        (0, json.dumps({"scores": {}}).encode()),
        (1, b"PK damaged"),
        (1, good[1][1][:100]),
        (1, b""),
        (1, other.with_suffix(".npz").read_bytes()),
    ]
    for place, content in cases:
        good[place][0].write_bytes(content)
        with pytest.raises(UserError, match=r"python -m src\.evaluate writes it") as caught:
            read_evaluation(file)
        assert "\n" not in str(caught.value)
        good[place][0].write_bytes(good[place][1])
    with pytest.raises(UserError, match=r"python -m src\.evaluate writes it"):
        read_evaluation(tmp_path / "nowhere.json")
    read_evaluation(file)
