"""Scoring a run's checkpoint: the score that training gave, and nobody else's eyes on test."""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, write_split
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from src.build import build_model, build_part
from src.composing import compose_checked, fill_in
from src.config import check_evaluate
from src.datasets.reader import SegmentationDataset
from src.errors import UserError
from src.evaluate import evaluate, read_checked
from src.evaluation import Request, evaluate_checkpoint
from src.restore import read_checkpoint
from src.stored_config import read_stored_config
from src.stored_evaluations import Evaluation, read_evaluation
from src.studies.reading import Run, read_run

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
CAMVID = os.environ.get("CAMVID_ROOT")
CPU = ("device=cpu", "threads=1", "precision=fp32")
TINY = ("dataset.root=data", "dataset.image_size=[24,32]", "model.channels=[4,8]", "loader.batch_size=4", "optimizer=adamw_fast")
Evaluated = Callable[..., Evaluation]


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def trained(folder: Path, *words: str) -> Path:
    done = python(folder, "src.train", "hydra.run.dir=run", "training.panel_images=1", *CPU, *words)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def damage_test(data: Path) -> None:
    for file in data.glob("test*/*"):
        file.write_bytes(b"not a picture")


def train_tiny(work: Path) -> Path:
    """A run on frames of two videos; while it trained, nobody could have read a file of the test split."""
    for split, number in (("train", 12), ("val", 7), ("test", 5)):
        write_split(work / "data", split, number, (48, 64))
    damage_test(work / "data")
    run = trained(work, *TINY, "training.epochs=3")
    write_split(work / "data", "test", 5, (48, 64))
    for kind in ("test", "testannot"):  # numbers that sort otherwise as text
        for file in sorted((work / "data" / kind).iterdir()):
            number = int(file.stem.partition("_")[2])
            file.rename(file.with_name(f"{'one' if number < 2 else 'two'}_{8 + number}.png"))
    return run


@pytest.fixture(scope="module", params=["tiny", pytest.param("camvid", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on made frames of two videos, and one on the real CamVid."""
    work = tmp_path_factory.mktemp(request.param)
    if request.param == "tiny":
        return train_tiny(work)
    if not CAMVID:
        pytest.skip("set CAMVID_ROOT to a copy of CamVid to run this")
    return trained(work, f"dataset.root={CAMVID}", "dataset.image_size=[64,80]", "model.channels=[4,8]", "training.epochs=1")


@pytest.fixture
def evaluated(run: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluated:
    """What `python -m src.evaluate run=run WORDS` writes."""
    monkeypatch.chdir(run.parent)

    def call(*words: str) -> Evaluation:
        config = fill_in(compose_checked("evaluate", ["run=run", *CPU[:2], *words])[0])
        check_evaluate(config)
        assert evaluate(config) == 0
        return read_evaluation(run / f"evaluations/{config.split}_{config.checkpoint}_{config.size}.json")

    return call


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def best_row(run: Path) -> dict[str, str]:
    return max(rows(run), key=lambda row: float(row["val/miou"]))


def test_it_gives_the_score_of_training_in_batches_of_any_size(run: Path, evaluated: Evaluated) -> None:
    row = best_row(run)
    for size in ("1", "3", "8", "null"):
        found = evaluated(f"batch_size={size}")
        assert found.facts["epoch"] == int(row["epoch"])
        for name in ("miou", "pixel_accuracy", "class_accuracy"):
            assert found.scores[name] == pytest.approx(float(row[f"val/{name}"]), abs=1e-6)
        for name, iou in found.scores["iou"].items():
            assert row[f"val/iou/{name}"] == "" if iou is None else iou == pytest.approx(float(row[f"val/iou/{name}"]), abs=1e-6)


def test_the_last_checkpoint_gives_the_last_score(run: Path, evaluated: Evaluated) -> None:
    assert evaluated("checkpoint=last").scores["miou"] == pytest.approx(float(rows(run)[-1]["val/miou"]), abs=1e-6)


def test_a_score_on_val_is_taken_as_training_took_it(run: Path, evaluated: Evaluated) -> None:
    facts = read_run(run)
    prints = {evaluated(*words).fingerprint for words in ((), ("split=test",), ("size=full",), ("batch_size=1",))}
    assert facts["protocol_fingerprint"] in prints
    assert len(prints) == 3
    assert Run(run, facts).fingerprint == evaluated().fingerprint


def test_the_same_command_gives_the_same_file(run: Path, evaluated: Evaluated) -> None:
    files = [run / "evaluations" / f"val_best_training{ending}" for ending in (".json", ".npz")]
    evaluated()
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    evaluated("batch_size=2")
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("size", ["training", "full"])
def test_it_equals_torchmetrics_image_by_image(run: Path, evaluated: Evaluated, size: str) -> None:
    """The masks as they lie there, the logits as the network gives them, and another library."""
    found = evaluated("split=test", f"size={size}")
    data, model = rebuilt(run)
    metric = MulticlassJaccardIndex(data.num_classes, average="none", ignore_index=data.ignore_index)
    chosen = np.linspace(0, len(data) - 1, 5).astype(int).tolist()
    places = [found.names.index(data.names[index]) for index in chosen]
    for index, place in zip(chosen, places, strict=True):
        logits, mask = predicted(model, data, index, size)
        single = MulticlassJaccardIndex(data.num_classes, average="none", ignore_index=data.ignore_index)
        single.update(logits, mask.long())
        metric.update(logits, mask.long())
        assert iou_of(found.confusion[place]) == pytest.approx(single.compute().numpy(), abs=1e-6)
        assert found.confusion[place].sum() == (mask != data.ignore_index).sum()
    assert iou_of(found.confusion[places].sum(0)) == pytest.approx(metric.compute().numpy(), abs=1e-6)


def rebuilt(run: Path) -> tuple[SegmentationDataset, torch.nn.Module]:
    config = read_stored_config(run)
    data = build_part("dataset", config.dataset, split="test", augmentation=None, seed=0)
    model = build_model(config, data.num_classes)
    model.load_state_dict(read_checkpoint(run / "checkpoints" / "best.pt")["model"])
    return data, model.eval()


@torch.no_grad()
def predicted(model: torch.nn.Module, data: SegmentationDataset, index: int, size: str) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = data[index]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    logits = model(((torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std)[None])
    if size == "full":
        mask = data.native_mask(index)
        assert mask.shape[0] > logits.shape[2]
        logits = torch.nn.functional.interpolate(logits, mask.shape, mode="bilinear", align_corners=False)
    return logits, torch.from_numpy(np.array(mask))[None]


def iou_of(confusion: np.ndarray) -> np.ndarray:
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return np.divide(np.diag(confusion), union, out=np.zeros(len(union)), where=union > 0)


def test_each_video_has_its_scores(run: Path, evaluated: Evaluated) -> None:
    found = evaluated("split=test")
    images = {name: scores["images"] for name, scores in found.facts["sequences"].items()}
    assert images == ({"0001TP": 62, "Seq05VD": 171} if run.parent.name.startswith("camvid") else {"one": 2, "two": 3})
    assert list(images) == list(dict.fromkeys(found.sequences))
    if "one" in images:
        assert found.names == ["one_8", "one_9", "two_10", "two_11", "two_12"]
    for name, scores in found.facts["sequences"].items():
        total = found.confusion[np.array(found.sequences) == name].sum(0)
        present = total.sum(1) > 0
        present[len(found.class_names) :] = False
        assert scores["miou"] == pytest.approx(iou_of(total)[present].mean())


def test_several_runs_and_lines_of_json(run: Path, evaluated: Evaluated, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, run.parent / "second run", dirs_exist_ok=True)
    evaluated("run=[run,'second run']", "format=json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["folder"] for line in lines] == ["run", "second run"]
    assert lines[0]["scores"] == lines[1]["scores"]
    assert Path(lines[1]["file"]).is_file()


def test_what_keeps_a_score_from_being_the_runs_is_told(
    run: Path, evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings() -> list[str]:  # CamVid's val and train share a video, which is told each time
        return [line for line in capsys.readouterr().err.splitlines() if "share the sequence 0016E5" not in line]

    evaluated()
    assert warnings() == []
    facts = read_run(run)
    other = facts | {"status": "interrupted", "data_fingerprint": facts["data_fingerprint"] | {"val": "0123456789abcdef"}}
    shutil.copytree(run, run.parent / "unlike", dirs_exist_ok=True)
    (run.parent / "unlike" / "run.json").write_text(json.dumps(other))
    evaluated("run=unlike")
    told = warnings()
    assert len(told) == 2
    assert "is interrupted, not finished" in told[0]
    assert "0123456789abcdef" in told[1]
    assert facts["data_fingerprint"]["val"] in told[1]


def test_the_data_may_have_moved(run: Path, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = evaluated().scores
    root = (run.parent / read_stored_config(run).dataset["root"]).resolve()
    (tmp_path / "moved").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    assert evaluated(f"root={tmp_path / 'moved'}").scores == expected


@pytest.mark.slow
def test_what_cannot_be_scored_is_told_before_torch_is_imported(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "checkpoints")
    cases = [
        (["run=nowhere"], "no run.json there"),
        (["run=nowhere:top3"], "no such folder, and no sweep of that name"),
        (["run=best"], "no finished run in outputs"),
        (["run=[]"], "no run named"),
        (["run=run", "split=tset"], "split=tset; allowed are val, test"),
        (["run=run", "size=half"], "size=half; allowed are training, full"),
        (["run=run", "checkpont=last"], "did you mean checkpoint"),
        (["run=run", "batch_size=0"], "whole numbers from 1"),
        (["run=run", "precision=fp8"], "precision=fp8; allowed are"),
        ([f"run='{tmp_path / 'bare'}'"], "no such checkpoint; the run is finished"),
        ([], "run"),
    ]
    script = (
        "import runpy, sys\nsys.argv[0] = 'src/evaluate.py'\n"
        "try:\n    runpy.run_module('src.evaluate', run_name='__main__')\n"
        "finally:\n    assert 'torch' not in sys.modules\n"
    )
    children = [start_script(run.parent, script, words) for words, _ in cases]
    for child, (words, why) in zip(children, cases, strict=True):
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out) == (1, ""), (words, err)
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        assert why in line


def start_script(folder: Path, script: str, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_wrong_data_and_checkpoints_are_told(run: Path, evaluated: Evaluated, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        evaluated(f"root={tmp_path}")
    for split in ("train", "val"):
        write_split(tmp_path / "few", split, 2, (48, 64))
    with pytest.raises(UserError, match="no test split here; the segnet layout has train, val"):
        evaluated(f"root={tmp_path / 'few'}", "split=test")
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()  # best.pt and last.pt may be one file
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        evaluated(f"run='{tmp_path / 'run'}'")
    assert not (tmp_path / "run" / "evaluations" / "val_best_training.json.tmp").exists()


def test_a_stored_configuration_can_name_nothing_that_the_command_line_could_not(
    run: Path, evaluated: Evaluated, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    good = (copy / "config.yaml").read_text()
    for bad, why in (
        (re.sub(r"_target_: src\.models\S+", "_target_: os.system", good), "os.system"),
        (re.sub(r"_target_: src\.models\S+", "_target_: src.datasets.camvid.CamVid", good), "subclass of Module"),
        (good.replace("seed: 0", "seed: ${oc.env:HOME}"), "interpolation"),
        (good.replace("precision: fp32", "precision: !!python/object/apply:os.getcwd []"), "not readable as YAML"),
        (re.sub(r"\n  root: .*", "\n  root: '***'", good), "give root=FOLDER"),
        (good.replace("seed: 0", "seed: many"), "many"),
        ("- 1\n", "holds list"),
        (BOMB, "config.yaml"),
    ):
        assert bad != good, why
        (copy / "config.yaml").write_text(bad)
        with pytest.raises(UserError, match=re.escape(why)):
            evaluated(f"run='{copy}'")


def copied(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The made data and the run that was trained on them, to be changed at will; the root is where it was, `data`."""
    if run.parent.name.startswith("camvid"):
        pytest.skip("for made data, which can be changed")
    shutil.copytree(run.parent / "data", tmp_path / "data")
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluations", ignore_errors=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def scored(*words: str) -> dict[str, Any]:
    """The facts that `python -m src.evaluate run=run WORDS` prints; the root is that of the current folder."""
    config = fill_in(compose_checked("evaluate", ["run=run", *CPU[:2], "format=json", "root=data", *words])[0])
    check_evaluate(config)
    folder = Path("run")
    own = read_checked(folder, config)
    return evaluate_checkpoint(folder, own, Request(config.split, config.size, config.checkpoint)).facts


@pytest.mark.parametrize("source", ["train", "val"])
def test_an_image_that_the_run_learnt_from_is_not_scored(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Under another name, and in another compression: the pixels decide."""
    data = copied(run, tmp_path, monkeypatch)
    assert scored("split=test")["leakage"] == {"compared_with": ["train", "val"], "near_frames": [], "warnings": []}
    image, mask = data / source / "frame_002.png", data / f"{source}annot" / "frame_002.png"
    with Image.open(image) as opened:
        opened.save(data / "test" / "two_99.png", compress_level=1)
    shutil.copy(mask, data / "testannot" / "two_99.png")
    assert (data / "test" / "two_99.png").read_bytes() != image.read_bytes()
    done = python(tmp_path, "src.evaluate", "run=run", "split=test", "root=data", *CPU[:2])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"data/test/two_99.png of test is the same picture as data/{source}/frame_002.png of {source}" in line
    assert "remove it from test" in line
    assert not (tmp_path / "run" / "evaluations").exists()


def test_near_frames_of_one_video_are_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(run, tmp_path, monkeypatch)
    for folder in (data / "test", data / "testannot"):
        (folder / "two_12.png").rename(folder / "frame_041.png")  # train ends with 11, val with 6
    config = fill_in(compose_checked("evaluate", ["run=run", "split=test", "root=data", *CPU[:2]])[0])
    check_evaluate(config)
    assert evaluate(config) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f"warning: {split} and test share the sequence frame: frames {last} and 41 are {41 - last} apart;"
        " scores on test are optimistic"
        for split, last in (("train", 11), ("val", 6))
    ]
    stored = read_evaluation(tmp_path / "run/evaluations/test_best_training.json").facts["leakage"]
    assert [near["frames_apart"] for near in stored["near_frames"]] == [30, 35]


def test_training_data_that_are_gone_or_others_cannot_be_compared(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = copied(run, tmp_path, monkeypatch)
    trained_on = read_run(tmp_path / "run")["data_fingerprint"]["train"]
    for folder in ("train", "trainannot"):  # train has since gained an image of val
        source = data / folder.replace("train", "val") / "frame_001.png"
        shutil.copy(source, data / folder / "frame_500.png")
    (line,) = scored("split=val")["leakage"]["warnings"]
    assert line.startswith("val could not be compared with train, so that they may share images: train was " + trained_on)
    for file in data.glob("train*/*"):
        file.unlink()
    found = scored("split=test")["leakage"]
    assert found["compared_with"] == ["val"]
    (line,) = found["warnings"]
    assert line.startswith("test could not be compared with train, so that they may share images: ")
    assert "no image" in line
    facts = read_run(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"data_fingerprint": None}))
    assert [line.endswith("run.json has no fingerprint of train") for line in scored("split=val")["leakage"]["warnings"]] == [
        True
    ]


@pytest.mark.slow
def test_a_sweep_does_not_read_the_test_split(tmp_path: Path) -> None:
    """It succeeds where every file of that split is damaged; `train_tiny` shows the same of a run."""
    for split, number in (("train", 8), ("val", 3), ("test", 3)):
        write_split(tmp_path / "data", split, number, (24, 32))
    damage_test(tmp_path / "data")
    done = python(tmp_path, "src.train", "-m", *TINY, *CPU, "training.panel_images=1", "training.epochs=1", "seed=3")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs").rglob("run.json"))) == 1


def test_only_evaluation_and_the_doctor_name_the_test_split() -> None:
    found = set()
    for file in (ROOT / "src").rglob("*.py"):
        if "datasets" in file.parts or "diagnosis" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value == "test":
                found.add(file.name)
    assert found <= {"config.py"}  # which allows it for evaluate
    assert {file.name for file in (ROOT / "src").rglob("*.py") if "evaluate_checkpoint(" in file.read_text(encoding="utf-8")} == {
        *("evaluate.py", "evaluation.py", "replay.py", "contrast.py")
    }
