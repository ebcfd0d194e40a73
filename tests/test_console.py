"""What a person reads while a run goes on, where there is no terminal to draw a bar on."""

from pathlib import Path

import pytest

from src import console
from src.escaping import cleaned_output
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


def test_a_long_line_above_a_bar_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "40"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    command = f"watch it: tensorboard --logdir {'/a long folder' * 8}/[0]"
    with console.ProgressView(tmp_path / "train.log", 1, Redactor([])) as view:
        assert view.bar is not None
        console.LOGGER.info(command)
    assert command in capsys.readouterr().out


def test_a_bar_is_drawn_though_what_else_is_printed_is_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    with cleaned_output(), console.ProgressView(tmp_path / "train.log", 1, Redactor([])) as view:
        assert view.bar is not None
        console.LOGGER.info("a line\x1b]0;owned\x07")
    said = capsys.readouterr().out
    assert "a line?]0;owned?" in said
    assert "\x1b[?25l" in said  # that hides the cursor
    assert "a line?]0;owned?\n" in (tmp_path / "train.log").read_text()


def test_what_is_told_before_there_is_a_log_is_in_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    redactor = Redactor(["api_key=hush-hush"])
    console.keep_early_lines(redactor)
    console.LOGGER.warning("the first line, of hush-hush")
    assert capsys.readouterr().err == "the first line, of ***\n"
    with console.ProgressView(tmp_path / "train.log", 1, redactor):
        console.LOGGER.warning("the second line")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("the second line\n", "")
    lines = [line.partition(" the ")[2] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert lines == ["first line, of ***", "second line"]
