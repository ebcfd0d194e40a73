"""YAML and run folders of strangers: nothing in them runs, hangs or writes elsewhere. Payloads leave a mark."""

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from made_runs import make_run

from src.cli import prepare
from src.errors import ConfigError
from src.resume import find_previous
from src.runs.explain import explain
from src.studies.ledger import Study, write_study
from src.studies.points import expand_points
from src.trust import MAX_BYTES, MAX_DEPTH, MAX_VALUES, check_folder

Process = Callable[..., subprocess.CompletedProcess[str]]
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 7))


def write_experiment(home: Path, text: str) -> Path:
    """A folder to add to conf/, with `experiment=strange`."""
    (home / "strange" / "experiment").mkdir(parents=True)
    (home / "strange" / "experiment" / "strange.yaml").write_text(f"# @package _global_\n{text}")
    return home / "strange"


# --- what reading would cost -----------------------------------------------------------------------------------------


def test_the_bomb_is_one(tmp_path: Path) -> None:
    assert len(BOMB) < 400
    (tmp_path / "bomb.yaml").write_text(BOMB)
    load = [sys.executable, "-c", "import sys; from omegaconf import OmegaConf; OmegaConf.load(sys.argv[1])"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([*load, str(tmp_path / "bomb.yaml")], timeout=8, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "strange", "experiment=strange"],
        ["-cd", "strange", "--cfg", "job", "experiment=strange"],
        ["-m", "--config-dir=strange", "experiment=strange", "seed=0,1"],
        ["--cfg", "job", "hydra.searchpath=[file://{home}/strange]", "experiment=strange"],
        ["--info", "config", "--config-dir", "strange", "experiment=strange"],
        ["--config-dir", "strange", "--hydra-help"],
    ],
    ids=lambda words: words[0],
)
def test_an_alias_bomb_is_refused_at_once(words: list[str], train_process: Process, tmp_path: Path) -> None:
    write_experiment(tmp_path, BOMB)
    before = os.times()
    done = train_process(*(word.format(home=tmp_path) for word in words))
    used = os.times()
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/strange/experiment/strange.yaml: more than {MAX_VALUES} values")
    assert used.children_user + used.children_system - before.children_user - before.children_system < 2
    assert [path.name for path in tmp_path.iterdir()] == ["strange"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, f"more than {MAX_VALUES} values"),
        ("<<: &a {x: 1}\nb: &b {<<: *a, y: [*a, *a]}\nc: [" + ", ".join(["*b"] * 2000) + "]", f"more than {MAX_VALUES} values"),
        ("a: &a [*a]", r"the alias \*a stands for nothing, or for what it is part of"),
        ("a: *b", r"the alias \*b stands for nothing"),
        ("a: " + "x" * MAX_BYTES, rf"{MAX_BYTES + 3} bytes; a YAML file may have {MAX_BYTES}"),
        ("a: " + "[" * 1000, f"nested deeper than {MAX_DEPTH} levels"),
        ("a: [1, 2", "not readable as YAML"),
        ("a: \x00", "not readable as YAML"),
    ],
    ids=lambda text: text[:12],
)
def test_files_over_a_limit_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/model/x\.yaml: {message}") as caught:
        check_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_values_are_counted_as_they_would_be_read(tmp_path: Path) -> None:
    def count(value: Any) -> int:
        items = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        return 1 + sum(count(item) for item in items)

    start = "a: &a {x: [1, 2, &b {y: 3}]}\nb: [*b, *a, *b]\nc: &c 4\n"
    least = count(yaml.safe_load(start))
    for more, is_refused in ((MAX_VALUES - least - 2, False), (MAX_VALUES - least - 1, True)):
        (tmp_path / "x.yaml").write_text(f"{start}d: [{', '.join(['*c'] * more)}]")
        assert (count(yaml.safe_load((tmp_path / "x.yaml").read_text())) > MAX_VALUES) == is_refused
        if is_refused:
            with pytest.raises(ConfigError):
                check_folder(tmp_path)
        else:
            check_folder(tmp_path)


def test_links_are_followed_and_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "bomb.yaml").write_text(BOMB)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "round").symlink_to(tmp_path / "conf")
    check_folder(tmp_path / "conf")
    (tmp_path / "conf" / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"model/bomb\.yaml"):
        check_folder(tmp_path / "conf")


def test_our_own_configuration_is_within_the_limits() -> None:
    check_folder(ROOT / "conf")


# --- what it could make run ------------------------------------------------------------------------------------------

# A sweep whose jobs do nothing, from the front door on; without its guard; and by Hydra alone.
SWEEP = "from src import cli; cli.run_job = lambda _: 0.0; cli.main(lambda *_: 0.0, lambda _: None)"
UNGUARDED = f"from src import cli, composing; composing.check_hydra_node = lambda *_: None; {SWEEP}"
RERUN = "from src import cli; cli.hand_to_hydra('config')"


STREETS = (
    "dataset=streets",
    *(f"dataset.num_{split}=1" for split in ("train", "val", "test")),
    "dataset.render_size=[32,32]",
    "loader.batch_size=1",
)


def run(code: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_callback_is_refused_and_would_have_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    write_experiment(tmp_path, f"hydra:\n  callbacks:\n    x: {{_target_: os.mkdir, path: {mark}}}\n")
    words = ["-m", "--config-dir", "strange", "experiment=strange", "seed=0,1", *STREETS]
    done = run(SWEEP, tmp_path, *words)
    assert not mark.exists()
    assert done.stderr.startswith("error: hydra.callbacks.x._target_: set by a file outside conf/")
    assert len(done.stderr.splitlines()) == 1
    run(UNGUARDED, tmp_path, *words)
    assert mark.exists()


@pytest.mark.slow
def test_a_callback_in_a_sweeps_folder_is_refused_and_would_have_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    words = ["seed=0,1", *STREETS, "+hydra.callbacks.x._target_=os.mkdir", f"+hydra.callbacks.x.path='{mark}'"]
    (tmp_path / "folder").mkdir()
    write_study(tmp_path / "folder", Study("x", None, words, {}, "continue", {}, []))
    done = run(SWEEP, tmp_path, "-m", "study.resume=folder")
    assert done.stderr.startswith("error: study.resume=folder: +hydra.callbacks.x._target_=os.mkdir ")
    assert len(done.stderr.splitlines()) == 1
    assert not mark.exists()
    run(SWEEP, tmp_path, "-m", *words)
    assert mark.exists()


@pytest.mark.parametrize("value", ["{way}/evil", "'{way}/evil'", "[{way}/evil]", "${{oc.env:WAY}}/evil"])
def test_an_option_does_not_lead_out_of_its_folder(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head of such a file says that it stands in Hydra's own node, where it would run."""
    (tmp_path / "evil.yaml").write_text("# @package hydra.callbacks\nx: {_target_: os.mkdir, path: x}\n")
    way = os.path.relpath(tmp_path, ROOT / "conf" / "experiment")
    monkeypatch.setenv("WAY", way)
    option = value.format(way=way)
    (point,) = expand_points([], {"crossed": {"experiment": [option]}})
    for word in (f"experiment={option}", *point):
        with pytest.raises(ConfigError) as caught:
            prepare("config", [word])
        assert str(caught.value) == f"{word}: give the name of a file in conf/experiment/; --config-dir adds a folder to conf/"


def test_no_package_is_imported_for_its_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for the words of a stranger's run."""
    (tmp_path / "evil_package").mkdir()
    (tmp_path / "evil_package" / "__init__.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    word = "hydra.searchpath=[pkg://evil_package]"
    folder = make_run(tmp_path / "run", 0.5, overrides=[word])
    for compose in (lambda: prepare("config", [word]), lambda: explain("seed", [], folder)):
        with pytest.raises(ConfigError, match=r"^hydra\.searchpath: pkg://evil_package; give folders$"):
            compose()
    assert not (tmp_path / "mark").exists()


SHOW_COMMAND = f"""
from src.studies import isolation
def start(command, env=None, **_):
    print("started", *command, flush=True)
    raise OSError
isolation.Child = start
{SWEEP.replace("cli.run_job = lambda _: 0.0; ", "")}
"""


@pytest.mark.slow
@pytest.mark.parametrize("added", [["--config-dir", "strange"], ["hydra.searchpath=[file://{home}/strange]"]], ids=str)
def test_the_jobs_of_a_sweep_find_the_added_folder(added: list[str], tmp_path: Path) -> None:
    write_experiment(tmp_path, "seed: 5\n")
    done = run(
        SHOW_COMMAND, tmp_path, "-m", *(word.format(home=tmp_path) for word in added), "experiment=strange", "seed=0,1", *STREETS
    )
    started = [line for line in done.stdout.splitlines() if line.startswith("started") and "src.train" in line]
    assert started, done.stderr
    assert all("hydra.searchpath=[" in line and str(tmp_path / "strange") in line for line in started)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hydra: {job: {env_set: {PYTHONPATH: /tmp}}}", "hydra.job.env_set.PYTHONPATH"),
        ("hydra: {hydra_logging: {handlers: {x: {(): os.mkdir, path: x}}}}", "hydra.hydra_logging.handlers.x.()"),
        ("hydra: {launcher: {setup: [touch x]}}", "hydra.launcher.setup"),
        ("hydra: {launcher: {x: {_target_: os.mkdir, path: x}}}", "hydra.launcher.x._target_"),
        ("hydra: {sweep: {dir: /tmp/x}}", "hydra.sweep.dir"),
        ("defaults: [override /hydra/launcher: joblib]", "hydra.launcher._target_"),
    ],
    ids=lambda text: text[:30],
)
def test_only_a_person_tells_hydra_what_to_do(text: str, key: str, tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, text)
    added = f"hydra.searchpath=[file://{folder}]"
    with pytest.raises(ConfigError) as caught:
        prepare("config", [added, "experiment=strange"])
    assert str(caught.value).startswith(f"{key}: set by a file outside conf/") or "launcher" in str(caught.value)
    (folder / "experiment" / "strange.yaml").write_text("# @package _global_\nseed: 5\n")
    typed = ["hydra.run.dir=x", "+hydra.job.env_set.X=1", "hydra/launcher=joblib"]
    _, config = prepare("config", [added, "experiment=strange", *typed])
    assert config.seed == 5


def test_a_pickle_is_not_rerun(tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "config.pickle"
    file.write_bytes(pickle.dumps(MakesFolder(str(mark))))
    words = ["-m", "--experimental-rerun", str(file)]
    done = run(SWEEP, tmp_path, *words, "seed=0,1")
    assert not mark.exists()
    assert done.stderr.startswith("error: --config-path, --config-name and --experimental-rerun are not used here")
    run(RERUN, tmp_path, *words)
    assert mark.exists()


class MakesFolder:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_tag_that_makes_objects_is_refused_and_would_have_made_one(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = write_experiment(tmp_path, f"seed: !!python/object/apply:os.mkdir [{mark}]\n")
    with pytest.raises(ConfigError, match="could not determine a constructor for the tag"):
        prepare("config", [f"hydra.searchpath=[file://{folder}]", "experiment=strange"])
    assert not mark.exists()
    yaml.unsafe_load((folder / "experiment" / "strange.yaml").read_text())
    assert mark.exists()


@pytest.mark.slow
def test_a_target_in_a_strangers_yaml_is_refused(train_process: Process, tmp_path: Path) -> None:
    """It composes, since it may be ours; nothing of it is called."""
    mark = tmp_path / "mark"
    write_experiment(tmp_path, f"model: {{_target_: src.studies.isolation.os.mkdir, path: {mark}}}\ndevice: cpu\n")
    done = train_process("--config-dir", "strange", "experiment=strange", "dataset=streets", "dataset.image_size=[24,32]")
    assert done.returncode == 1
    assert done.stderr.startswith("error: model._target_=src.studies.isolation.os.mkdir: no such class"), done.stderr
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../../x", "/x", "..\\x", "a/../../x"])
def test_a_name_in_a_strangers_yaml_stays_under_outputs(name: str, tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, yaml.safe_dump({"name": name}))
    launch, config = prepare("config", [f"hydra.searchpath=[file://{folder}]", "experiment=strange"])
    assert config.name == launch.config["name"]
    assert (Path("/outputs") / str(config.name)).resolve().parent == Path("/outputs")


# --- what comes with a run's folder ----------------------------------------------------------------------------------


def test_the_configuration_of_a_run_folder_is_compared_and_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, mark = tmp_path / "outputs" / "x" / "run", tmp_path / "mark"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").touch()
    (folder / "config.yaml").write_text(BOMB)
    launch, config = prepare("config", [f"training.resume='{folder}'"])
    strange = launch.config | {"model": {"_target_": "os.mkdir", "path": str(mark)}}
    (folder / "run.json").write_text(json.dumps({"status": "failed", "short_id": launch.short_id, "config": strange}))
    with pytest.raises(ConfigError, match=r"model\._target_ \(os\.mkdir there, src\.models\.attunet\.AttU_Net here\)"):
        find_previous(config, launch)
    assert config.model["_target_"] == "src.models.attunet.AttU_Net"
    assert not mark.exists()


READERS = {"load", "safe_load", "full_load", "unsafe_load", "load_all", "create", "from_dotlist", "loads"}


def test_no_file_is_read_as_yaml_or_pickle_but_by_hydra() -> None:
    """Runs are read back from run.json alone; checkpoints only where weights_only is said."""
    found = []
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS:
                words = ", ".join(f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords)
                found.append((file.name, ast.unparse(node.func), words))
    others = ("json.", "np.", "image.", "OverridesParser.")
    assert {entry for entry in found if not entry[1].startswith(others)} == {
        ("hparams.py", "yaml.safe_load", ""),  # of conf/ itself, plain values alone
        ("origins.py", "OmegaConf.load", ""),  # of files that were composed before, and so checked
        ("stored_config.py", "yaml.load", ""),  # a run's own config.yaml, by the loader that builds plain values alone
        ("restore.py", "torch.load", "map_location='cpu', weights_only=True"),
    }
    assert all("allow_pickle=True" not in words for _, _, words in found)
