"""Damaged, swapped and strange files of runs and sweeps: the right result, or one line that says what is wrong."""

import contextlib
import io
import json
import math
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT, write_split
from made_runs import make_sweep

from src.composing import compose_checked, fill_in
from src.config import check_evaluate
from src.errors import UserError
from src.evaluate import evaluate
from src.runs import compare, diff, explain, listing, replay, report
from src.stored_evaluations import Evaluation, pack, read_evaluation, write_evaluation
from src.studies.reading import read_runs
from src.studies.report.differences import Differences, Frame, pair_of, write_differences
from src.studies.statistics.standing import standings

FEW, MANY = 40, 1000  # of both kinds together: the first in any test run, the others in the slow one
DEEP = "[" * 100_000
STRANGE: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**400, 2**64, 1e308, math.nan, math.inf, "", "x", "\ud800", "../..", "/etc/passwd", "\x1b[2J"),
    *([], [1], [[]], ["x"] * 2000, {}, {"": {"seed": "x"}}, {"a": {"b": []}}, "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00"),
    *({"monitor": 5}, {"val/miou": "x"}, {"status": "finished"}),
]
Damage = Callable[[random.Random, Path], object]


# --- what happens to a file ------------------------------------------------------------------------------------------


def cut(chance: random.Random, file: Path) -> None:
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def flip(chance: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 1, 8, 64))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    replace(file, bytes(content))


def put(chance: random.Random, file: Path) -> None:
    """Other bytes in the middle, or in place of everything."""
    content = file.read_bytes()
    more = chance.choice((b"\xff\xfe", b"\0", b"\n\n", b"5\n", b"{}\n", b'"\xed\xa0\x80"', DEEP.encode()))
    place = chance.choice((0, chance.randrange(len(content))))
    replace(file, chance.choice((content[:place] + more + content[place:], more, b"")))


def nest(chance: random.Random, file: Path) -> None:
    replace(file, chance.choice((DEEP, DEEP + "]" * 100_000, '{"config":' * 50_000, '{"job": ' + DEEP)).encode())


def replace(file: Path, content: bytes) -> None:
    file.unlink()  # checkpoints may share one content
    file.write_bytes(content)


def mistype(chance: random.Random, file: Path) -> None:
    """A value of another type, or none, somewhere in what the file says."""
    if file.suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        change(chance, lines)
        text = "".join(json.dumps(line) + "\n" for line in lines)
    elif file.suffix == ".json":
        tree = json.loads(file.read_text())
        change(chance, tree)
        text = json.dumps(tree)
    elif file.suffix == ".yaml":
        tree = yaml.safe_load(file.read_text())
        change(chance, tree)
        text = yaml.safe_dump(tree)
    elif file.suffix == ".npz":
        return repack(chance, file)
    else:
        cells = [line.split(",") for line in file.read_text().splitlines()]
        row = chance.choice(cells)
        row[chance.randrange(len(row))] = chance.choice(("", "x", "nan", "1e999", '"', "\0", "é" * 10, "1,2,3"))
        text = "\n".join(map(",".join, cells))
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    return None


def change(chance: random.Random, tree: Any) -> None:
    """Goes down a random path, most of the time to its end."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = chance.choice(keys)
        below = tree[key]
        if not isinstance(below, dict | list) or not below or chance.random() < 0.15:
            break
        tree = below
    if chance.random() < 0.2:
        del tree[key]
    else:
        tree[key] = chance.choice(STRANGE)


def repack(chance: random.Random, file: Path) -> None:
    with np.load(file) as loaded:
        arrays = {name: loaded[name] for name in loaded}
    counts = arrays["confusion"]
    wrong = (counts[:1], counts[:, :2], -counts, counts * 0.5, counts[0], np.zeros((0, 4, 4)))
    arrays |= chance.choice(
        (
            *({"confusion": other} for other in wrong),
            *({"names": other} for other in (arrays["names"][:1], np.arange(len(counts)), np.array("x"))),
            *({"sequences": other} for other in (arrays["names"][:1], np.zeros((3, 3)))),
        )
    )
    content = pack(**arrays)
    file.write_bytes(content)
    facts = json.loads(file.with_suffix(".json").read_text())  # as whoever makes both would
    file.with_suffix(".json").write_text(json.dumps({key: value for key, value in facts.items() if key != "counts_sha256"}))


def damage(chance: random.Random, folder: Path, names: list[str], kinds: tuple[Damage, ...]) -> list[str]:
    """Does something to one to three files; gives the names of those that may be other ones now."""
    chosen = chance.sample(names, chance.choice((1, 1, 2, 3)))
    if chance.random() < 0.25 and len(names) > 1:
        one, other = (folder / name for name in chance.sample(names, 2))
        before = one.read_bytes(), other.read_bytes()
        replace(one, before[1])
        if chance.random() < 0.5:
            replace(other, before[0])
        return [str(path.relative_to(folder)) for path in (one, other)]
    for name in chosen:
        with contextlib.suppress(ValueError):  # what was damaged before cannot be mistyped
            chance.choice(kinds)(chance, folder / name)
    return chosen


def ends_well(call: Callable[[], object]) -> tuple[str, str, str]:
    """What a command prints, its warnings, and the one line that it refuses with; any other exception is a traceback."""
    out, err = io.StringIO(), io.StringIO()
    refused, code = "", None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            call()
        except UserError as error:
            refused = str(error) or "nothing"
        except SystemExit as error:
            code = error.code
    assert "\n" not in refused, refused
    assert refused != "nothing"
    assert code in (None, 0, 1), code
    return out.getvalue(), err.getvalue(), refused


# --- a sweep, read by `python -m src.runs` ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve jobs, two of them evaluated, one failed, and what the two best differ in."""
    folder = make_sweep(tmp_path_factory.mktemp("made") / "sweep")
    runs = read_runs(folder)[0]
    for run in runs:
        rows = [{"epoch": 1, "val/miou": 0.5}, {"epoch": 2, "val/miou": None}]
        (run.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, run in enumerate(runs[:2]):
        (run.folder / "diff.patch").write_text(f"diff --git a/x b/x\n+{number}\n")
        write_evaluation(run.folder, made_evaluation(number))
    facts = json.loads((runs[2].folder / "run.json").read_text())
    (runs[2].folder / "run.json").write_text(json.dumps(facts | {"status": "failed", "error": "OutOfMemoryError: no room"}))
    (runs[2].folder / "train.log").write_text("Traceback\n")
    pair = pair_of(standings(read_runs(folder)[0])[0])
    frame = Frame("a", 0.5, 0.25, "AAAA", "AAAA", "AAAA", "AAAA")
    write_differences(folder, Differences(pair, ["a", "b"], ["c", "d"], [1, 2], "They differ.", 3, [frame], [("Sky", "#00ff00")]))
    return folder


def made_evaluation(seed: int) -> Evaluation:
    names = [f"frame_{number:02d}" for number in range(12)]
    facts = {
        **{"split": "val", "checkpoint": "best", "size": "training", "class_names": ["Sky", "Road"], "names": names, "epoch": 1},
        **{"scores": {"miou": 0.5}, "protocol": {"split": "val"}, "protocol_fingerprint": "01234567"},
    }
    return Evaluation(names, ["video"] * 12, np.random.default_rng(seed).integers(0, 2**20, (12, 2, 2)), facts)


KINDS: tuple[Damage, ...] = (cut, flip, put, nest, mistype, mistype, mistype, mistype)


def read_everything(sweep: Path, page: Path, chance: random.Random) -> list[dict[str, Any]]:
    """Every command that reads a sweep; the slow ones now and then. Gives the rows of `list`."""
    out, told, _ = ends_well(lambda: listing.main([str(sweep), "format=json"]))
    jobs = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert all(job in out or job in told for job in jobs), "a run is neither listed nor told to be left out"
    for words in ([str(sweep)], [str(sweep), f"sort={chance.choice(('score', '-start', 'epoch', 'model.init'))}"]):
        ends_well(lambda words=words: listing.main(words))
    ends_well(lambda: listing.main([str(sweep), chance.choice(("seed=0", "score>0.3", "model.channels=[4,8]")), "format=csv"]))
    ends_well(lambda: compare.main([str(sweep)]))
    ends_well(lambda: diff.main([str(sweep / jobs[0]), str(sweep / jobs[1])]))
    if chance.random() < 0.2:
        ends_well(lambda: report.main([str(sweep), f"output={page}"]))
    if chance.random() < 0.1:
        ends_well(lambda: report.main([str(sweep), f"output={page}", f"save={page / 'saved'}"]))
    if chance.random() < 0.1:
        ends_well(lambda: explain.main(["optimizer.lr", f"run={sweep / jobs[0]}"]))
    return json.loads(out) if out else []


def corrupt_sweeps(sweep: Path, home: Path, seeds: range) -> None:
    names = sorted(str(path.relative_to(sweep)) for path in sweep.rglob("*") if path.is_file() and not path.name.startswith("."))
    copy = home / "sweep"
    shutil.copytree(sweep, copy)
    good = {row["folder"]: row for row in read_everything(copy, home / "page", random.Random(0))}
    assert len(good) == 12
    for seed in seeds:
        shutil.rmtree(copy)
        shutil.copytree(sweep, copy)
        chance = random.Random(seed)
        changed = damage(chance, copy, names, KINDS)
        try:
            rows = {row["folder"]: row for row in read_everything(copy, home / "page", chance)}
        except Exception as error:
            raise AssertionError(f"seed {seed}, {changed}: {type(error).__name__}: {error}") from error
        untouched = [folder for folder in good if not any(str(copy / name) == f"{folder}/run.json" for name in changed)]
        assert [rows[folder] for folder in untouched] == [good[folder] for folder in untouched], (seed, changed)


def test_a_sweep_with_damaged_files_is_read_or_refused(sweep: Path, tmp_path: Path) -> None:
    corrupt_sweeps(sweep, tmp_path, range(FEW))


# --- a run, scored again ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs on a few frames."""
    work = tmp_path_factory.mktemp("trained")
    for split, number in (("train", 6), ("val", 4)):
        write_split(work / "data", split, number, (24, 32))
    words = ["dataset.root=data", "dataset.image_size=[24,32]", "dataset.cache=none", "model.channels=[4,8]"]
    words += ["device=cpu", "threads=1", "precision=fp32", "training.epochs=2", "loader.batch_size=2", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "src.train", *words, "training.panel_images=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return work / "run"


def scored(folder: Path) -> str:
    """The refusal of `python -m src.evaluate run=FOLDER`; empty where it gave a score."""
    config = fill_in(compose_checked("evaluate", [f"run='{folder}'", "device=cpu", "format=json"])[0])
    check_evaluate(config)
    return ends_well(lambda: evaluate(config))[2]


# Checkpoints are not mistyped here: tests/test_corruption.py damages what they hold.
OF_RUN = ["run.json", "config.yaml", "metrics.csv", "evaluations/val_best_training.json", "evaluations/val_best_training.npz"]
BYTES = ["checkpoints/best.pt", "checkpoints/manifest.json", "checkpoints/manifest_copy.json"]


def corrupt_runs(run: Path, home: Path, seeds: range) -> dict[str, int]:
    copy, ends = home / "run", {"scored": 0, "refused": 0}
    (home / "data").symlink_to(run.parent / "data")
    shutil.copytree(run, copy)
    assert scored(copy) == ""
    names = [name for name in (*OF_RUN, *BYTES) if (copy / name).is_file()]
    good, start = read_evaluation(copy / "evaluations/val_best_training.json"), home / "start"
    shutil.copytree(copy, start)
    for seed in seeds:
        shutil.rmtree(copy)
        shutil.copytree(start, copy)
        chance = random.Random(seed)
        kinds = [names[:-3], KINDS] if chance.random() < 0.8 else [BYTES, (cut, flip)]
        changed = damage(chance, copy, *kinds) if kinds[0] is not BYTES else damage_bytes(chance, copy)
        try:
            refused = scored(copy)
            ends_well(lambda: replay.main([str(copy), "device=cpu"])) if chance.random() < 0.3 else None
            ends_well(lambda: explain.main(["loader.batch_size", f"run={copy}"])) if chance.random() < 0.1 else None
        except Exception as error:
            raise AssertionError(f"seed {seed}, {changed}: {type(error).__name__}: {error}") from error
        ends["refused" if refused else "scored"] += 1
        if not refused and "config.yaml" not in changed:  # with another one, such as another image size, another score is right
            found = read_evaluation(copy / "evaluations/val_best_training.json")
            np.testing.assert_array_equal(found.confusion, good.confusion, f"seed {seed}, {changed}")
    return ends


def damage_bytes(chance: random.Random, folder: Path) -> list[str]:
    chosen = chance.sample(BYTES, chance.choice((1, 2)))
    for name in chosen:
        chance.choice((cut, flip))(chance, folder / name)
    return chosen


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    import torch

    torch.set_num_threads(1)


def test_a_run_with_damaged_files_is_scored_or_refused(run: Path, tmp_path: Path) -> None:
    ends = corrupt_runs(run, tmp_path, range(FEW))
    assert ends["scored"]
    assert ends["refused"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_thousand_corruptions(run: Path, sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "of_sweep").mkdir()
    corrupt_sweeps(sweep, tmp_path / "of_sweep", range(FEW, MANY // 2))
    ends = corrupt_runs(run, tmp_path, range(FEW, MANY // 2))
    print(f"\n{MANY - 2 * FEW} damaged folders; of {sum(ends.values())} runs: {ends}")
