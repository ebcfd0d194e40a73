"""What a person reads while a run goes on, where there is no terminal to draw a bar on."""

from pathlib import Path

import pytest

from src import console
from src.loop import StepRecord
from src.redaction import Redactor


def test_no_loss_is_shown_before_one_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "QUIET_SECONDS", -1)
    with console.ProgressView(tmp_path / "train.log", 3, Redactor([])) as view:
        for step, loss in ((1, None), (2, None), (3, 0.5), (4, None)):
            view.step(StepRecord(epoch=2, step=step, num_steps=10, images=8 * step, loss=loss))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1:3] for line in lines] == [
        ["step 2/10", "loss not read yet"],
        ["step 3/10", "loss 0.5000"],
        ["step 4/10", "loss 0.5000"],
    ]
    assert all(line.startswith("epoch 2/3  ") and line.endswith("s left of the epoch") for line in lines)
    assert (tmp_path / "train.log").read_text().count("loss 0.5000") == 2
