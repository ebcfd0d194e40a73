"""The house keeps its shape: which file may know which, and how long a file may be."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FILES = [*SOURCES, *sorted((ROOT / "hydra_plugins").rglob("*.py"))]
MOST_LINES = 250

# Arrows point from a smaller number to a larger one or stay within one; an unlisted file fails a test of its own.
LAYERS = {
    0: {"train", "evaluate", "predict", "export", "doctor", "runs", "bench", "download"},  # entry points
    1: {
        *(
            "cli",
            "sweeping",
            "sweep_command",
            "run_folder",
            "recorder",
            "checkpoint",
            "restore",
            "manifest",
            "resume",
            "console",
            "failures",
            "summary",
        ),
        *(
            "studies",
            "gate_analysis",
            "diagnosis",
            "help",
            "trust",
            "composing",
            "evaluation",
            "stored_config",
            "stored_evaluations",
            "protocol",
            "hparams",
        ),
    },
    2: {"build", "checks", "loading", "loss_rehearsal", "parts", "rehearsal", "targets"},
    3: {"loop", "clock", "setup", "step"},
    4: {"state", "metrics"},
}
# Below all of these: facts and tools that know nothing of a run.
GROUND = {
    *("config", "config_errors", "datasets", "device", "durable", "environment", "errors", "escaping", "figures", "lock"),
    *("events", "losses", "models", "ranges", "ranks", "redaction", "schedules", "seeding", "signals", "tags", "times", "writer"),
    *("stored_files", "stored_json"),
}
HYDRA = {"cli", "composing", "config", "config_errors", "parts", "stored_config"} | LAYERS[0]
HYDRAS_JOB = ROOT / "src/studies/isolation.py"  # what Hydra calls for each job of a sweep
OF_PARTS = {"torch", "numpy", "PIL", "cv2", "albumentations", "jaxtyping", "pydantic", "rich"}


def part(file: Path) -> str:
    """`models` for src/models/unet.py, `loop` for src/loop.py."""
    return file.relative_to(ROOT / "src").parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Every module that the file imports, wherever in it, for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from src import cli` names a module, `from src.cli import main` a function in one
            names |= {f"src.{alias.name}" for alias in node.names} if node.module == "src" else {str(node.module)}
    return names


def of_ours(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(file) if name.startswith("src.")} - {part(file)}


def identify(file: Path) -> str:
    return str(file.relative_to(ROOT))


def layer(name: str) -> int:
    return next((number for number, names in LAYERS.items() if name in names), 5)


def test_the_files_were_found() -> None:
    assert {"train", "cli", "build", "loop", "state", "models", "datasets"} <= {part(file) for file in SOURCES}
    assert len(SOURCES) > 30
    assert "src.checkpoint" in imported(ROOT / "src/train.py")  # inside a function
    assert "src.build" in imported(ROOT / "src/loop.py") or "src.metrics" in imported(ROOT / "src/loop.py")


def test_every_file_has_its_place() -> None:
    placed = GROUND.union(*LAYERS.values()) | {"__init__"}
    assert {part(file) for file in SOURCES} <= placed, "say in LAYERS or GROUND what the new file may know"


@pytest.mark.parametrize("file", SOURCES, ids=identify)
def test_arrows_point_one_way(file: Path) -> None:
    here = part(file)
    for name in of_ours(file):
        assert layer(here) <= layer(name), f"{here} must not know {name}"


@pytest.mark.parametrize("file", [f for f in SOURCES if part(f) in ("models", "datasets")], ids=identify)
def test_networks_and_data_know_nothing_of_the_rest(file: Path) -> None:
    for name in imported(file):
        top = name.partition(".")[0]
        own = name == "src.errors" or name.startswith(f"src.{part(file)}")
        assert own or top in OF_PARTS or top in sys.stdlib_module_names, f"{identify(file)} imports {name}"


@pytest.mark.parametrize("file", [f for f in SOURCES if part(f) not in HYDRA and f != HYDRAS_JOB], ids=identify)
def test_hydra_stays_at_the_front_door(file: Path) -> None:
    assert not {name for name in imported(file) if name.partition(".")[0] in ("hydra", "omegaconf")}


def test_instantiate_is_called_in_one_place() -> None:
    callers = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("instantiate", "call"):
                callers.add(identify(file))
    assert callers == {"src/parts.py"}


def test_one_file_speaks_to_the_network() -> None:
    network = {"urllib.request", "http.client", "http.server", "requests", "httpx", "aiohttp", "ftplib"}
    assert [identify(file) for file in FILES if imported(file) & network] == ["src/datasets/fetching.py"]
    assert [identify(file) for file in FILES if "src.datasets.fetching" in imported(file)] == ["src/download.py"]


def test_recorder_and_figures_know_no_gates() -> None:
    for name in ("recorder", "figures"):
        assert not of_ours(ROOT / f"src/{name}.py") & {"gate_analysis", "models", "build", "targets"}


@pytest.mark.parametrize("file", SOURCES, ids=identify)
def test_a_file_is_one_thought(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_no_file_is_a_drawer() -> None:
    assert not [identify(file) for file in FILES if file.stem in ("utils", "util", "helpers", "helper", "common", "misc", "base")]


@pytest.mark.parametrize(
    "file", [ROOT / "src/train.py", ROOT / "src/cli.py", ROOT / "src/doctor.py", ROOT / "src/evaluate.py"], ids=identify
)
def test_the_front_door_opens_without_torch(file: Path) -> None:
    """At module level neither they nor what they import there may reach torch."""
    seen: set[Path] = set()
    todo = [file]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        tree = ast.parse(current.read_text(encoding="utf-8"))
        for node in tree.body:  # not those in functions, nor under `if TYPE_CHECKING`
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            modules = (
                [str(node.module), *(f"{node.module}.{name}" for name in names)] if isinstance(node, ast.ImportFrom) else names
            )
            assert not {m.partition(".")[0] for m in modules} & {"torch", "albumentations", "numpy", "matplotlib"}, current
            for module in modules:
                path = ROOT / f"{module.replace('.', '/')}.py"
                todo += [path] if module.startswith("src.") and path.is_file() else []
    assert len(seen) >= (5 if file.stem == "cli" else 1)
