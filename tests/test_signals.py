"""Signals that are noted until the step has ended."""

import os
import signal

import pytest

from src.signals import StopSignals


def test_ctrl_c_is_noted_though_nobody_reads_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `| tee log`, which ends by the same Ctrl-C."""
    reading, writing = os.pipe()
    os.close(reading)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, text: write(writing if file == 2 else file, text))
    with StopSignals(answers=True) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGINT
    os.close(writing)
