"""Real processes: `python -m src.train` on the tiny data, finished, cut, killed, failed and continued.

Every scenario is started once, two at a time; the tests look at what it left.
"""

import csv
import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, write_split
from openpyxl import load_workbook
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.cli import prepare
from src.datasets.label_tables import CAMVID11
from src.errors import ConfigError
from src.resume import find_previous

MEASURED = ("time/", "speed/", "memory/")  # tags that no two runs share
EPOCHS = 30  # enough that a signal after the second finds the run at work
FILE_LIMIT = 24_000  # bytes: enough for run.json and config.yaml, too little for a checkpoint
TAGS = [
    *("epoch", "train/loss", "train/pixel_accuracy", "train/gradient_norm", "val/loss", "val/miou", "val/pixel_accuracy"),
    *("val/class_accuracy", "lr", "time/epoch_seconds", "time/data_wait_share", "speed/images_per_second", "memory/peak_mib"),
    *(f"val/iou/{label.name}" for label in CAMVID11),
]


@dataclass(frozen=True)
class Done:
    """What a process said, and the folder of its run if it has one."""

    code: int
    output: str
    folder: Path

    def run(self) -> dict[str, Any]:
        def refuse(word: str) -> float:
            raise ValueError(f"{word} is no JSON")

        return json.loads((self.folder / "run.json").read_text(), parse_constant=refuse)

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def repeatable_rows(self) -> list[dict[str, str]]:
        return [{tag: value for tag, value in row.items() if not tag.startswith(MEASURED)} for row in self.rows()]

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / "checkpoints" / "last.pt", weights_only=True)["model"]


class Workplace:
    """A folder with the tiny data, in which processes are started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: list[subprocess.Popen[str]] = []
        write_split(home / "tiny data", "train", 12, (24, 32))
        write_split(home / "tiny data", "val", 5, (24, 32))

    def words(self, name: str, *others: str) -> list[str]:
        return [
            f"name={name}",
            f"dataset.root='{self.home / 'tiny data'}'",
            *("dataset.image_size=null", "model.channels=[4,8]", "scheduler=constant", "optimizer=adamw", "device=cpu"),
            *("threads=1", "loader.batch_size=4", "training.panel_images=2", "training.panel_every=100"),
            *("monitor.tag=train/loss", "monitor.mode=min", *others),
        ]

    def start(self, *words: str, limit: int | None = None) -> subprocess.Popen[str]:
        def set_limit() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        process = subprocess.Popen(
            [sys.executable, "-m", "src.train", *words],
            cwd=self.home,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=set_limit,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Ends what a failed scenario left running."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def finish(self, process: subprocess.Popen[str], name: str, said: str = "") -> Done:
        output, _ = process.communicate(timeout=300)
        return Done(process.returncode, said + output, self.folder(name))

    def train(self, name: str, *others: str, limit: int | None = None) -> Done:
        return self.finish(self.start(*self.words(name, *others), limit=limit), name)

    def folder(self, name: str) -> Path:
        """The newest of that name."""
        return max((self.home / "outputs" / name).glob("*"), default=self.home / "none")

    def folders(self, name: str) -> int:
        return len(list((self.home / "outputs" / name).glob("*")))

    def start_until(self, line: str, name: str, *others: str) -> tuple[subprocess.Popen[str], str]:
        """A process that has just said `line`, and what it said before."""
        process, said = self.start(*self.words(name, *others)), ""
        assert process.stdout
        while line not in said:
            read = process.stdout.readline()
            assert read, said
            said += read
        return process, said


def run_whole(at: Workplace) -> Done:
    return at.train("whole", f"training.epochs={EPOCHS}", f"training.checkpoint_every={EPOCHS // 2}", "loader.num_workers=1")


def run_short_then_more(at: Workplace) -> tuple[Done, Done]:
    first = at.train("short", "training.epochs=2")
    more = at.train("short", f"training.epochs={EPOCHS}", f"training.resume='{first.folder}'")
    assert at.folders("short") == 1
    return first, more


def run_terminated(at: Workplace) -> tuple[Done, dict[str, Any], Done]:
    process, said = at.start_until("epoch 2/", "terminated", f"training.epochs={EPOCHS}")
    process.send_signal(signal.SIGTERM)
    cut = at.finish(process, "terminated", said)
    facts = cut.run()
    again = at.train("terminated", f"training.epochs={EPOCHS}", "training.resume=auto")
    assert at.folders("terminated") == 1
    return cut, facts, again


def run_killed(at: Workplace) -> tuple[Done, Done, Done, dict[str, Any], Done]:
    process, said = at.start_until("epoch 2/", "killed", f"training.epochs={EPOCHS}")
    process.send_signal(signal.SIGSTOP)  # it lives, and stays where it is
    folder = at.folder("killed")
    second = at.train("killed", f"training.epochs={EPOCHS}", f"training.resume='{folder}'")
    process.kill()
    killed = Done(at.finish(process, "killed", said).code, said, folder)
    before = killed.run()
    patient = ["training.epochs=50", "training.patience=2", "training.on_nonfinite=skip", "monitor.tag=train/skipped_steps"]
    stopped_early = at.train("killed", *patient)
    again = at.train("killed", *patient, f"training.resume='{stopped_early.folder}'")
    return killed, second, stopped_early, before, again


def run_failing(at: Workplace) -> Done:
    return at.train("failing", "training.epochs=2", limit=FILE_LIMIT)


SCENARIOS: list[Callable[[Workplace], Any]] = [run_killed, run_terminated, run_short_then_more, run_whole, run_failing]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Callable[[Workplace], Any]], Any]]:
    """Gives what a scenario left, once it is over."""
    at = Workplace(tmp_path_factory.mktemp("home of a person"))
    with ThreadPoolExecutor(2) as threads:
        futures: dict[Callable[[Workplace], Any], Future[Any]] = {s: threads.submit(s, at) for s in SCENARIOS}
        yield lambda scenario: futures[scenario].result()
        threads.shutdown(wait=False, cancel_futures=True)
        at.end()


Left = Callable[[Callable[[Workplace], Any]], Any]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# --- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_leaves_every_file_of_the_contract(left: Left) -> None:
    done: Done = left(run_whole)
    assert done.code == 0, done.output
    found = {str(file.relative_to(done.folder)) for file in done.folder.rglob("*") if file.is_file()} - {".lock", "diff.patch"}
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents.")}
    assert len(events) == 1
    assert found - events == {
        *("config.yaml", "run.json", "metrics.csv", "metrics.jsonl", "metrics.xlsx", "train.log"),
        *(
            "checkpoints/last.pt",
            "checkpoints/best.pt",
            "checkpoints/best.safetensors",
            f"checkpoints/epoch_{EPOCHS // 2:04d}.pt",
            f"checkpoints/epoch_{EPOCHS:04d}.pt",
        ),
        *(
            "checkpoints/manifest.json",
            "checkpoints/manifest_copy.json",
            "checkpoints/last_previous.pt",
            "checkpoints/best_previous.pt",
            "figures/curves.png",
            f"figures/panels_epoch_{EPOCHS:04d}.png",
            f"figures/attention_epoch_{EPOCHS:04d}.png",
        ),
    }
    assert all((done.folder / name).stat().st_size > 0 for name in found)
    assert str(done.folder.relative_to(done.folder.parents[2])) in done.output


def test_run_json_tells_what_was_run_and_how_it_ended(left: Left) -> None:
    done: Done = left(run_whole)
    facts = done.run()
    assert facts["status"] == "finished"
    assert facts["error"] is None
    assert "-m src.train name=whole" in facts["command"]
    assert {"name=whole", f"training.epochs={EPOCHS}"} <= set(facts["overrides"])
    assert facts["start"] < facts["end"]
    assert facts["host"] == os.uname().nodename
    assert facts["device"] == "cpu"
    assert facts["packages"]["torch"] == torch.__version__
    assert {"git_commit", "git_dirty", "short_id", "config"} <= set(facts)
    assert done.folder.name.endswith(f"_{facts['short_id']}")
    assert set(facts["data_fingerprint"]) == {"train", "val"}
    assert facts["images"] == {"train": 12, "val": 5}
    assert facts["protocol"]["split"] == "val"
    learnt = [value for key, value in done.weights().items() if not key.endswith(("_mean", "_var", "_tracked"))]
    assert facts["parameters"] == sum(value.numel() for value in learnt)
    assert facts["gmacs"] > 0
    losses = [float(row["train/loss"]) for row in done.rows()]
    assert facts["best_score"] == min(losses)
    assert facts["best_epoch"] == losses.index(min(losses)) + 1
    assert facts["final_scores"]["train/loss"] == losses[-1]
    assert facts["final_scores"]["val/iou/Fence"] is None  # no validation image has one


def test_metrics_have_the_tags_of_the_contract_in_every_file(left: Left) -> None:
    done: Done = left(run_whole)
    rows = done.rows()
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    assert sorted(rows[0]) == sorted(TAGS)
    lines = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    assert [{tag: float(v) if v else None for tag, v in row.items()} for row in rows] == lines
    header, *cells = load_workbook(done.folder / "metrics.xlsx").worksheets[0].iter_rows(values_only=True)
    assert list(header) == list(lines[0])
    for row, line in zip(cells, lines, strict=True):  # a spreadsheet keeps 16 digits
        assert [v is None for v in row] == [v is None for v in line.values()]
        assert [v for v in row if v is not None] == pytest.approx([v for v in line.values() if v is not None], rel=1e-14)
    events = EventAccumulator(str(done.folder / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([line["train/loss"] for line in lines])
    told = {tag for tag in TAGS if lines[0].get(tag) is not None} - {"epoch"}
    assert set(events.Tags()["scalars"]) == told | {"best/train/loss"}  # the best so far, for the HPARAMS tab
    assert events.Scalars("best/train/loss")[-1].value == pytest.approx(min(line["train/loss"] for line in lines))
    finite = [value for line in lines for value in line.values() if value is not None]
    assert all(math.isfinite(value) for value in finite)
    assert all(0 <= line["time/data_wait_share"] <= 1 and line["speed/images_per_second"] > 0 for line in lines)


def test_config_yaml_composes_the_same_run_again(left: Left) -> None:
    from omegaconf import OmegaConf

    done: Done = left(run_whole)
    written = OmegaConf.to_container(OmegaConf.load(done.folder / "config.yaml"))
    assert written == done.run()["config"]
    launch, _ = prepare("config", done.run()["overrides"])
    assert launch.config == written
    assert launch.short_id == done.run()["short_id"]


def test_the_log_holds_what_the_console_said(left: Left) -> None:
    done: Done = left(run_whole)
    log = (done.folder / "train.log").read_text()
    for line in done.output.splitlines():
        assert line in log
    assert f"epoch {EPOCHS}/{EPOCHS}" in done.output


# --- going on --------------------------------------------------------------------------------------------------------


def test_more_epochs_continue_a_finished_run_as_if_asked_for_at_once(left: Left) -> None:
    first, more = left(run_short_then_more)
    whole: Done = left(run_whole)  # with a loader worker, which changes nothing either
    assert (first.code, more.code) == (0, 0), first.output + more.output
    assert more.folder == first.folder != whole.folder
    assert more.repeatable_rows() == whole.repeatable_rows()
    assert same(more.weights(), whole.weights())
    assert more.run()["status"] == "finished"
    assert [done.run()["lengthened"] for done in (more, whole)] == [True, False]
    assert "resumed after epoch 2" in more.output
    assert "nothing unfinished" not in more.output


def test_a_changed_key_is_refused_by_name(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    done: Done = left(run_whole)
    before = (done.folder / "run.json").read_bytes()
    monkeypatch.chdir(done.folder.parents[2])
    words = [*done.run()["overrides"], f"training.resume='{done.folder}'", "optimizer.lr=0.5", "seed=3", "training.log_every=7"]
    launch, config = prepare("config", words)
    with pytest.raises(ConfigError) as caught:
        find_previous(config, launch)
    assert "optimizer.lr (0.001 there, 0.5 here)" in str(caught.value)
    assert "seed (0 there, 3 here)" in str(caught.value)
    assert "log_every" not in str(caught.value)  # harmless
    assert (done.folder / "run.json").read_bytes() == before


def test_fewer_epochs_are_refused(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    done: Done = left(run_whole)
    monkeypatch.chdir(done.folder.parents[2])
    launch, config = prepare("config", [*done.run()["overrides"], f"training.resume='{done.folder}'", "training.epochs=1"])
    with pytest.raises(ConfigError, match=rf"training\.epochs \({EPOCHS} there, 1 here\)"):
        find_previous(config, launch)


def test_sigterm_saves_and_resume_auto_finishes_as_if_never_cut(left: Left) -> None:
    cut, facts, again = left(run_terminated)
    whole: Done = left(run_whole)
    assert cut.code == 128 + signal.SIGTERM, cut.output
    assert facts["status"] == "interrupted"
    assert "signal 15" in facts["error"]
    assert facts["end"]
    assert 2 <= facts["epoch"] < EPOCHS
    assert again.code == 0, again.output
    assert again.folder == cut.folder
    assert (again.run()["status"], again.run()["error"], again.run()["start"]) == ("finished", None, facts["start"])
    assert again.repeatable_rows() == whole.repeatable_rows()
    assert len(again.rows()) == EPOCHS
    assert same(again.weights(), whole.weights())
    assert "Warning" not in cut.output + again.output


def test_a_killed_run_is_marked_by_the_next_start_of_its_name(left: Left) -> None:
    killed, _, _, before, _ = left(run_killed)
    assert killed.code == -signal.SIGKILL
    assert before["status"] == "running"  # it could not say so itself
    assert killed.run()["status"] == "failed"
    assert "killed" in killed.run()["error"]


def test_a_second_process_in_the_same_folder_is_refused(left: Left) -> None:
    killed, second, _, _, _ = left(run_killed)
    assert second.code == 1
    assert "another process" in second.output
    assert len(second.output.splitlines()) == 1
    assert str(killed.folder) in second.output


def test_patience_ends_a_run_that_no_longer_gets_better(left: Left) -> None:
    _, _, early, _, again = left(run_killed)
    assert early.code == 0, early.output
    assert (again.code, again.folder) == (0, early.folder), again.output  # resumed, it adds nothing
    assert "stopped early: no better train/skipped_steps for training.patience=2 epochs" in early.output
    assert len(early.rows()) == 3  # the rate never changes: best at the first epoch, then two without a better one
    assert (early.run()["status"], early.run()["best_epoch"]) == ("finished", 1)
    assert (early.folder / "metrics.xlsx").exists()


# --- failing ---------------------------------------------------------------------------------------------------------


def test_a_failure_while_training_leaves_its_traceback(left: Left) -> None:
    done: Done = left(run_failing)
    assert done.code == 1
    facts = done.run()
    assert facts["status"] == "failed"
    assert facts["end"]
    assert facts["error"]
    log = (done.folder / "train.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert facts["error"].split(":")[0] in log
    assert not list(done.folder.rglob("*.tmp"))
