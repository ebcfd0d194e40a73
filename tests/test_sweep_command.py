"""The command line of a sweep, before anything is composed."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import make_sweep

from src.errors import ConfigError
from src.studies.ledger import read_study, write_study
from src.studies.sweep import command_to_go_on
from src.sweep_command import is_search, read_command, tell_hydra

STORED = ["seed=0,1", "hydra/launcher=joblib", "hydra.sweep.dir='where it was'"]


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A sweep that was started elsewhere."""
    folder = make_sweep(tmp_path / "moved")
    write_study(folder, replace(read_study(folder), words=STORED))
    return folder


def read(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What Hydra is told in the end."""
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *words])
    command = read_command(list(words))
    tell_hydra(command, command.folder or Path("new"))
    return sys.argv[1:]


def test_a_sweep_goes_on_where_it_lies_now(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = read(monkeypatch, f"study.resume={moved}")
    assert told == ["-m", "seed=0,1", "hydra/launcher=joblib", f"hydra.sweep.dir='{moved}'"]


def test_hydras_keys_alone_take_the_place_of_its_own(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = read(monkeypatch, f"study.resume={moved}", "hydra/launcher=basic")
    assert told == ["-m", "seed=0,1", "hydra/launcher=basic", f"hydra.sweep.dir='{moved}'"]


def test_a_whole_command_is_taken_as_it_is(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = read(monkeypatch, f"study.resume={moved}", "seed=0,1", "threads=1")
    assert told == ["-m", "seed=0,1", "threads=1", f"hydra.sweep.dir='{moved}'"]


def test_another_launcher_gets_no_keys_of_the_one_before(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = ["seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+hydra.launcher.verbose=1"]
    write_study(moved, replace(read_study(moved), words=stored))
    folder = f"hydra.sweep.dir='{moved}'"
    told = read(monkeypatch, f"study.resume={moved}", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu")
    given = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    assert told == ["-m", "seed=0,1", *given, folder]
    told = read(monkeypatch, f"study.resume={moved}", "hydra/launcher=joblib")
    assert told == ["-m", "seed=0,1", *stored[2:], "hydra/launcher=joblib", folder]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study.resume="], "study.resume=: no folder given"),
        (["seed=0,1", "study.resume=''"], "study.resume=: no folder given"),
        (["study.resume=MOVED", "hydra.sweep.dir=elsewhere"], "and hydra.sweep.dir=elsewhere: a sweep goes on in its own folder"),
        (
            ["study.resume=MOVED", "threads=2"],
            "threads=2 is given, but not seed, which its own command has; a sweep that goes on",
        ),
    ],
)
def test_a_sweep_that_cannot_go_on_so_is_refused(
    moved: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(monkeypatch, *(word.replace("MOVED", str(moved)) for word in words))
    assert said in str(refused.value)
    told = read(monkeypatch, f"study.resume={moved}", f"hydra.sweep.dir={moved.parent}/./{moved.name}")
    assert told == ["-m", *STORED[:2], f"hydra.sweep.dir='{moved}'"]


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.callbacks.x._target_=src.studies.child.Child",
        "+hydra.job.env_set.PYTHONPATH=FOLDER",
        "+hydra={callbacks: {x: {_target_: os.system}}}",
        "+optimizer@hydra.callbacks.x=sgd",
        "hydra/job_logging=../../../FOLDER/evil",
        "hydra/launcher=../../../FOLDER/evil",
        "hydra/launcher=[basic]",
        "hydra.sweeper.storage=sqlite:////elsewhere",
        "hydra.launcher._target_=os.system",
        "hydra.launcher={_target_: os.system}",
        "hydra.launcher.setup=[reboot]",
        "hydra.searchpath=[pkg://evil]",
        "~hydra.sweeper",
    ],
)
def test_stored_words_that_may_run_code_must_be_typed_again(moved: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    write_study(moved, replace(read_study(moved), words=["seed=0,1", word]))
    with pytest.raises(ConfigError) as refused:
        read(monkeypatch, f"study.resume={moved}")
    said = f"study.resume={moved}: {shlex.quote(word)}: not taken from a file, as it might run code; type it again"
    assert str(refused.value) == said
    assert shlex.quote(word) in command_to_go_on(moved)
    told = read(monkeypatch, f"study.resume={moved}", word)
    assert told == ["-m", "seed=0,1", word, f"hydra.sweep.dir='{moved}'"]


def test_a_launcher_and_its_numbers_are_taken_from_the_file(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["seed=0,1", "hydra/launcher=submitit_local", "hydra.launcher.mem_gb=1.5", "+hydra.launcher.ray.remote.num_gpus=1"]
    words += ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=30"]
    write_study(moved, replace(read_study(moved), words=words))
    assert read(monkeypatch, f"study.resume={moved}") == ["-m", *words, f"hydra.sweep.dir='{moved}'"]
    assert command_to_go_on(moved).endswith(f"-m study.resume='{moved}'")


def test_a_flag_in_the_file_is_no_word(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra would read a pickle."""
    write_study(moved, replace(read_study(moved), words=["seed=0,1", "--experimental-rerun=job.pickle"]))
    with pytest.raises(ConfigError, match=r"--experimental-rerun=job\.pickle: not of the form key=value"):
        read(monkeypatch, f"study.resume={moved}")


def test_a_folder_that_every_job_would_name_anew_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="give a path without interpolations"):
        read(monkeypatch, "seed=0,1", "hydra.sweep.dir=out/${now:%H}")


def test_another_sweeper_than_ours_is_refused() -> None:
    assert not is_search(["seed=0,1"])
    assert not is_search(["hydra/sweeper=optuna", "hydra/sweeper=study"])
    assert is_search(["hydra/sweeper=optuna", "optimizer.lr=interval(0.1,0.2)"])
    with pytest.raises(ConfigError, match=r"^hydra/sweeper=basic: allowed are study and optuna$"):
        is_search(["hydra/sweeper=basic"])
