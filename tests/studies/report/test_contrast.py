"""Where two runs differ most: what is shown is what the networks said, and it is found only where it can be."""

import base64
import dataclasses
import html
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_split
from PIL import Image
from test_evaluate import TINY, trained

from src.evaluation import evaluate_checkpoint
from src.run_folder import read_run
from src.runs import report as report_command
from src.runs.diff import lab_note
from src.stored_config import read_stored_config
from src.stored_evaluations import evaluation_file, read_evaluation, write_evaluation
from src.studies.reading import Run, read_runs
from src.studies.report import contrast
from src.studies.report.differences import DIFFERENCES, Differences, read_differences
from src.studies.report.page import write_report
from src.studies.report.saving import save_data
from src.studies.statistics.frames import compare_evaluations
from src.studies.statistics.standing import standings

FRAMES = 24


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and one with the same weights but for some noise, which counts as another configuration."""
    work = tmp_path_factory.mktemp("contrast")
    for split, number in (("train", 8), ("val", FRAMES)):
        write_split(work / "data", split, number, (48, 64))
    folder = work / "sweep"
    folder.mkdir()
    trained(work, *TINY, "model.init=normal", f"dataset.root={work / 'data'}", "training.epochs=1").rename(folder / "0_normal")
    shutil.copytree(folder / "0_normal", folder / "1_kaiming")
    for file in folder.glob("1_kaiming/checkpoints/manifest*"):
        file.unlink()
    best = folder / "1_kaiming/checkpoints/best.pt"
    saved = torch.load(best, weights_only=True)
    chance = torch.Generator().manual_seed(0)
    for weight in saved["model"].values():
        if weight.is_floating_point() and weight.dim() == 4:
            weight += 0.1 * torch.randn(weight.shape, generator=chance)
    torch.save(saved, best)
    change(folder / "1_kaiming", lambda facts: facts["config"]["model"].update(init="kaiming"))
    return folder


def change(run: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((run / "run.json").read_text())
    alter(facts)
    (run / "run.json").write_text(json.dumps(facts))


def kept(folder: Path) -> Differences | None:
    return read_differences(folder, standings(read_runs(folder)[0])[0])


def ids(content: str, legend: list[tuple[str, str]]) -> np.ndarray:
    """Classes by the colours of the legend; void, its last, is -1."""
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
    colours = [tuple(bytes.fromhex(colour[1:])) for _, colour in legend]
    known = {colour: number for number, colour in enumerate(colours[:-1])} | {colours[-1]: -1}
    return np.array([[known[tuple(pixel)] for pixel in line] for line in shown.tolist()])


def miou(truth: np.ndarray, prediction: np.ndarray) -> float:
    counted = truth >= 0
    ious = []
    for number in np.unique(truth[counted]):
        a, b = (truth == number) & counted, (prediction == number) & counted
        ious.append((a & b).sum() / (a | b).sum())
    return float(np.mean(ious))


def test_pictures_and_scores_are_the_networks(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept(sweep) is None
    assert "Not known yet" in write_report(sweep).read_text()
    report_command.main([str(sweep)])
    assert "looking at each frame with" in capsys.readouterr().out
    found = kept(sweep)
    assert found is not None
    assert {tuple(run.split("_")) for run in found.runs} == {("0", "normal"), ("1", "kaiming")}
    assert (len(found.frames), found.num_frames) == (20, FRAMES)
    apart = [abs(frame.score_a - frame.score_b) for frame in found.frames]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0
    for frame in found.frames:
        truth, a, b = (ids(content, found.legend) for content in (frame.truth, frame.prediction_a, frame.prediction_b))
        assert truth.shape == (24, 32)
        assert frame.score_a == pytest.approx(miou(truth, a))
        assert frame.score_b == pytest.approx(miou(truth, b))
        image = Image.open(io.BytesIO(base64.b64decode(frame.image)))
        assert (image.format, image.size) == ("JPEG", (32, 24))
    assert "these two checkpoints" in found.sentence
    assert all(evaluation_file(sweep / run).is_file() for run in found.runs)


def test_the_page_shows_them_and_a_saved_one_too(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_command.main([str(sweep)])
    before = (sweep / DIFFERENCES).stat().st_mtime_ns
    report_command.main([str(sweep), f"save={tmp_path}"])
    assert (sweep / DIFFERENCES).stat().st_mtime_ns == before  # known already
    capsys.readouterr()
    report_command.main([str(tmp_path)])  # no checkpoint, no data
    assert "looking" not in capsys.readouterr().out
    pages = [(folder / "report.html").read_text() for folder in (sweep, tmp_path)]
    whole, copy = (re.findall(r'<img alt="([^"]+)" title="[^"]+" src="(data:image/\w+;base64,[^"]+)"', page) for page in pages)
    assert [name for name, _ in whole] == ["image", "truth", "A", "B"] * 20
    assert copy == [picture for picture in whole if picture[0] in "AB"]  # whoever saves it may not own the images
    assert '"image": ""' in (tmp_path / DIFFERENCES).read_text()
    found = kept(sweep)
    assert found is not None
    for page in ((tmp_path / "report.md").read_text(), html.unescape(pages[1])):
        assert f"{found.sentence} Both were chosen by their scores on these frames" in page
    assert f"| {found.frames[0].name} | {100 * found.frames[0].score_a:.1f} |" in (tmp_path / "report.md").read_text()


def test_a_colour_is_a_colour(sweep: Path, tmp_path: Path) -> None:
    """It stands in the page's style, where a browser would fetch what it names."""
    report_command.main([str(sweep)])
    save_data(sweep, tmp_path)
    assert kept(tmp_path) is not None
    facts = json.loads((tmp_path / DIFFERENCES).read_text())
    facts["legend"][0][1] = "url(http://evil/x.png)"
    (tmp_path / DIFFERENCES).write_text(json.dumps(facts))
    assert kept(tmp_path) is None
    assert "http://evil" not in write_report(tmp_path).read_text()


def test_what_is_of_other_runs_is_not_shown_and_what_lacks_is_told(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_command.main([str(sweep)])
    save_data(sweep, tmp_path)
    change(tmp_path / "1_kaiming", lambda facts: facts.update(best_score=0.99))  # as if it had been trained on
    assert kept(tmp_path) is None
    capsys.readouterr()
    report_command.main([str(tmp_path)])
    said = [line for line in capsys.readouterr().out.splitlines() if "frame by frame" in line]
    assert len(said) == 1
    assert said[0].endswith(": no checkpoints here of 1_kaiming and 0_normal")
    assert "Not known yet" in (tmp_path / "report.html").read_text()
    (tmp_path / DIFFERENCES).write_text("{")
    assert kept(tmp_path) is None


def test_a_failure_of_torch_costs_no_page(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An allocation that torch really refuses, as memory that is full would be: several lines, of which the first is told."""
    shutil.copytree(sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns(DIFFERENCES, "report.*"))
    monkeypatch.setattr(contrast, "best_two", lambda table: torch.empty(2**60))
    report_command.main([str(tmp_path / "sweep")])
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "frame by frame" in line]
    assert "not in the page, where the two best differ frame by frame: RuntimeError: " in said
    assert "Not known yet" in (tmp_path / "sweep" / "report.html").read_text()


def test_only_an_evaluation_in_the_precision_of_the_run_is_taken(sweep: Path) -> None:
    """One is scored in bf16 beforehand; it is scored anew in fp32, as the other one is taken as it was."""
    report_command.main([str(sweep)])
    files = [evaluation_file(sweep / run) for run in ("0_normal", "1_kaiming")]
    before = [file.read_bytes() for file in files]
    facts = json.loads(before[1])
    assert facts["precision"] == "fp32"
    config = read_stored_config(sweep / "1_kaiming")
    config.device, config.precision, config.loader.num_workers = "cpu", "bf16", 0
    write_evaluation(sweep / "1_kaiming", evaluate_checkpoint(sweep / "1_kaiming", config, contrast.BEST))
    assert json.loads(files[1].read_bytes())["precision"] == "bf16"
    stamp = files[0].stat().st_mtime_ns
    (sweep / DIFFERENCES).unlink()
    report_command.main([str(sweep)])
    assert [file.read_bytes() for file in files] == before
    assert files[0].stat().st_mtime_ns == stamp


def test_a_lab_note_says_what_may_be_said_of_two_checkpoints(sweep: Path) -> None:
    report_command.main([str(sweep)])
    a, b = (Run(sweep / name, read_run(sweep / name)) for name in ("0_normal", "1_kaiming"))
    note = lab_note(a, b)
    assert "## The two checkpoints\n\n- val_best_training: " in note
    assert "This speaks of these two checkpoints" in note


def test_evaluations_of_other_frames_are_not_compared(sweep: Path) -> None:
    report_command.main([str(sweep)])
    a = read_evaluation(evaluation_file(sweep / "0_normal"))
    other = dataclasses.replace(a, names=[f"{name}x" for name in a.names])
    with pytest.raises(ValueError, match="other frames"):
        compare_evaluations(a, other)
    elsewhere = a.facts | {"protocol": a.protocol | {"scored_data": "other"}, "protocol_fingerprint": "x"}
    with pytest.raises(ValueError, match="differ in scored_data"):
        compare_evaluations(a, dataclasses.replace(a, facts=elsewhere))
