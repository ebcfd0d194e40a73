"""The documents tell the truth: their commands compose, their paths and make targets exist."""

import re
import shlex
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from src.composing import compose_checked, fill_in, prepare
from src.config import check_evaluate
from src.studies.points import expand_points, is_sweep
from src.studies.sweep import take_options

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *sorted((ROOT / "conf").glob("*/*.yaml"))]
TRAIN = re.compile(r"^(?:#|    )\s*(?:\.venv/bin/)?(?:python|torchrun --nproc-per-node=2) -m src\.train ([^\n]*)$", re.MULTILINE)
PLACEHOLDERS = {"FOLDER": "data/somewhere", "FILE": "weights.pt"}


def training_commands() -> list[str]:
    commands = [line for document in DOCUMENTS for line in TRAIN.findall(document.read_text())]
    table = re.findall(r"^\| [a-z][^|]*\| `([^`]*=[^`]*)` ", (ROOT / "README.md").read_text(), re.MULTILINE)
    return sorted({*commands, *(row.replace("...", "") for row in table)})


def test_there_are_commands() -> None:
    assert len(training_commands()) > 12


@pytest.mark.parametrize("command", training_commands())
def test_command_composes(command: str) -> None:
    for word, stand_in in PLACEHOLDERS.items():
        command = command.replace(word, stand_in)
    _, words = take_options([word for word in shlex.split(command, comments=True) if word not in ("--help", "-m")])
    has_all = "hydra/launcher=ray" not in words or find_spec("ray")
    if not has_all:
        words = [word for word in words if "hydra/launcher" not in word and "hydra.launcher" not in word]
    if any(word.startswith("hydra/sweeper=") for word in words):  # one that draws values from what stands here as a range
        assert any(is_sweep(word) for word in words)
        words = [word for word in words if not is_sweep(word)]
    points = expand_points(words, study_of(words))
    for point in {tuple(word for word in point if not word.startswith("seed=")): point for point in points}.values():
        prepare("config", point)
    if not has_all:
        pytest.skip("Ray is not installed: its own words were left out, the others compose")


def test_the_doctors_commands_compose() -> None:
    text = "".join(document.read_text() for document in [*DOCUMENTS, ROOT / "src" / "doctor.py"])
    commands = re.findall(r"^(?:    |  )(?:\.venv/bin/)?python -m src\.doctor ([^\n>]*)", text, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        compose_checked("doctor", shlex.split(command.replace("FOLDER", "data/somewhere")))


def test_the_commands_of_evaluate_compose() -> None:
    text = "".join(document.read_text() for document in [*DOCUMENTS, ROOT / "src" / "evaluate.py"])
    commands = re.findall(r"^(?:    |  )(?:\.venv/bin/)?python -m src\.evaluate ([^\n]*?)(?:   .*)?$", text, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        config = fill_in(compose_checked("evaluate", shlex.split(command, comments=True))[0])
        check_evaluate(config)


def study_of(words: list[str]) -> dict[str, object] | None:
    return prepare("config", words)[0].config["study"] if any(word.startswith("study=") for word in words) else None


def test_the_study_that_is_shown_has_ten_points() -> None:
    shown = re.search(r"^    # @package _global_\n(?:    .*\n)+", (ROOT / "docs/studies.md").read_text(), re.MULTILINE)
    assert shown is not None
    study = yaml.safe_load(textwrap.dedent(shown[0]))["study"]
    points = expand_points([], study)
    assert len(points) == 10
    prepare("config", points[0])


def test_paths_in_the_map_exist() -> None:
    tree = (ROOT / "docs/map.md").read_text()
    paths = re.findall(r"(?:^    |\s{2,})((?:src|conf|tests|experiments|hydra_plugins|outputs|data)/[\w./]*)", tree, re.MULTILINE)
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path).exists(), path
    for document in (ROOT / "README.md", *DOCS):
        for path in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            assert (document.parent / path).exists(), path


def test_every_source_file_is_in_the_map() -> None:
    tree = (ROOT / "docs/map.md").read_text()
    for file in (ROOT / "src").glob("*.py"):
        if file.stem not in ("__init__", "errors", "help", "signals", "clock", "console", "environment", "redaction"):
            assert f"src/{file.name}" in tree, file.name


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    used = {target for document in [*DOCUMENTS[:2], *DOCS] for target in re.findall(r"\bmake ([a-z-]+)", document.read_text())}
    assert {"train", "test"} <= used
    for target in used:
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target
