"""What a `_target_` may be: payloads that leave a mark, refused, and run once the guard is taken away."""

import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from omegaconf import DictConfig, OmegaConf
from torch import nn

from src import build, parts
from src.build import build_part, in_words
from src.cli import prepare
from src.errors import ConfigError
from src.targets import KINDS, locate

CONF = ROOT / "conf"


class MakesFolder:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def path_node(word: str) -> dict[str, Any]:
    return {"_target_": "pathlib.Path", "_args_": [word]}


# Each leaves a mark, given these arguments. MARK stands for the path of what appears, VICTIM for a file that goes,
# PICKLE for a file that makes MARK when it is loaded.
PAYLOADS: dict[str, dict[str, Any]] = {
    "os.mkdir": {"path": "MARK"},
    "os.system": {"command": "mkdir MARK"},
    "subprocess.Popen": {"args": ["mkdir", "MARK"]},
    "builtins.exec": {"_args_": ["import os; os.mkdir('MARK')"]},
    "code.InteractiveInterpreter.runsource": {
        "self": {"_target_": "code.InteractiveInterpreter"},
        "source": "import os; os.mkdir('MARK')",
    },
    "numpy.save": {"file": "MARK", "arr": [1]},
    "numpy.load": {"file": "PICKLE", "allow_pickle": True},
    "torch.save": {"obj": 1, "f": "MARK"},
    "torch.load": {"f": "PICKLE", "weights_only": False},
    "shutil.copyfile": {"src": "PICKLE", "dst": "MARK"},
    "pathlib.Path.touch": {"self": path_node("MARK")},
    "pathlib.Path.unlink": {"self": path_node("VICTIM")},
    # aliases: they begin with an allowed prefix, or a harmless one, and end elsewhere
    "logging.os.system": {"command": "mkdir MARK"},
    "logging.os.mkdir": {"path": "MARK"},
    "src.environment.os.system": {"command": "mkdir MARK"},
    "src.environment.subprocess.Popen": {"args": ["mkdir", "MARK"]},
    "src.checkpoint.shutil.copyfile": {"src": "PICKLE", "dst": "MARK"},
    "src.studies.isolation.os.mkdir": {"path": "MARK"},
    "src.run_folder.Path.touch": {"self": path_node("MARK")},
    "src.run_folder.Path.unlink": {"self": path_node("VICTIM")},
    "src.datasets.reader.np.load": {"file": "PICKLE", "allow_pickle": True},
    "src.restore.torch.load": {"f": "PICKLE", "weights_only": False},
    "torch.nn.functional.torch.save": {"obj": 1, "f": "MARK"},
    "torch.nn.modules.module.torch.load": {"f": "PICKLE", "weights_only": False},
    "torch.nn.parallel.distributed.os.mkdir": {"path": "MARK"},
    "torch.nn.parallel.distributed.os.system": {"command": "mkdir MARK"},
    "albumentations.core.composition.np.save": {"file": "MARK", "arr": [1]},
    "albumentations.core.composition.np.load": {"file": "PICKLE", "allow_pickle": True},
    # ours, but of another kind
    "src.run_folder.claim_folder": {"parent": path_node("MARK"), "short_id": "x"},
    "src.run_folder.RunFolder": {"path": path_node("MARK")},
    "src.durable.replace_text": {"path": path_node("MARK"), "text": "x"},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with VICTIM and PICKLE, in which payloads leave their marks."""
    (tmp_path / "victim").touch()
    (tmp_path / "pickled").write_bytes(pickle.dumps(MakesFolder(str(tmp_path / "mark"))))
    return tmp_path


def filled(value: Any, place: Path) -> Any:
    """The value with the paths that its words stand for."""
    if isinstance(value, dict):
        return {key: filled(item, place) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, place) for item in value]
    for word, name in (("MARK", "mark"), ("PICKLE", "pickled"), ("VICTIM", "victim")):
        value = value.replace(word, str(place / name)) if isinstance(value, str) else value
    return value


def is_harmed(place: Path, seconds: float = 0) -> bool:
    """Whether something appeared or went, within so many seconds."""
    end = time.monotonic() + seconds
    while sorted(path.name for path in place.iterdir()) == ["pickled", "victim"]:
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def without_the_guard(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Builds a node as `build_part` would if nothing were checked, neither by us nor by Hydra's own list of bad names."""

    def build_unchecked(group: str, node: dict[str, Any], **runtime: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(parts, "check_targets", lambda group, node, runtime: runtime)
            for module in ("target_policy", "instantiate._instantiate2"):
                patch.setattr(f"hydra._internal.{module}._authorize_target_name", lambda *_, **__: None)
            try:
                built = build_part(group, node, **runtime)
                if isinstance(built, subprocess.Popen):
                    built.wait()
            except Exception as error:  # after the harm, what comes back is no network
                print(error)

    return build_unchecked


@pytest.mark.parametrize("target", PAYLOADS)
def test_a_payload_is_refused_and_would_have_run(target: str, place: Path, without_the_guard: Callable[..., None]) -> None:
    node = {"_target_": target, **filled(PAYLOADS[target], place)}
    partial = node | {"_partial_": True}
    for group in KINDS:
        for bad in (node, partial):
            with pytest.raises(ConfigError, match=rf"^{group}\.(_target_={re.escape(target)}|_\w+_: not allowed)"):
                build_part(group, bad)
    for group in ("model", "loss"):  # inside one that takes any argument
        with pytest.raises(ConfigError, match=re.escape(f"{group}.inner[0]._")):
            build_part(group, {"_target_": "torch.nn.Identity", "inner": [node]})
    with pytest.raises(ConfigError, match=re.escape("augmentation.transforms[1].transforms[0]._")):
        build_part("augmentation", nested_in_transforms(node))
    assert not is_harmed(place)

    without_the_guard("model", node)
    assert is_harmed(place, seconds=10)


def nested_in_transforms(node: dict[str, Any]) -> dict[str, Any]:
    flip = {"_target_": "albumentations.HorizontalFlip", "p": 0.5}
    some_of = {"_target_": "albumentations.OneOf", "transforms": [node]}
    return {"_target_": "src.datasets.augmentation.Augmentation", "transforms": [flip, some_of]}


@pytest.mark.parametrize("group", ["augmentation", "model"])
def test_a_nested_payload_would_have_run(group: str, place: Path, without_the_guard: Callable[..., None]) -> None:
    payload = filled({"_target_": "os.mkdir", "path": "MARK"}, place)
    nested = {
        "augmentation": nested_in_transforms(payload),
        "model": {"_target_": "torch.nn.Identity", "inner": {"x": [payload]}},
    }
    with pytest.raises(ConfigError, match=r"\]\._target_=os\.mkdir; allowed are classes under src\., torch\.nn\."):
        build_part(group, nested[group])
    assert not is_harmed(place)
    without_the_guard(group, nested[group])
    assert is_harmed(place)


def test_a_partial_payload_would_have_run_when_it_is_called(place: Path, without_the_guard: Callable[..., None]) -> None:
    """A schedule calls its `lr_lambda`; a `_partial_` target would give it what it calls."""
    call = filled({"_target_": "src.restore.torch.save", "f": "MARK", "_partial_": True}, place)
    node = {"_target_": "torch.optim.lr_scheduler.LambdaLR", "lr_lambda": call}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ConfigError, match=r"^scheduler\.lr_lambda\._partial_: not allowed in a configuration$"):
        build_part("scheduler", node, optimizer=optimizer)
    assert not is_harmed(place)
    without_the_guard("scheduler", node, optimizer=optimizer)
    assert is_harmed(place)


def test_a_module_that_is_not_allowed_is_not_even_imported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To import is to run: the text is checked first."""
    (place / "stranger.py").write_text(f"import os; os.mkdir({str(place / 'mark')!r})\nfrom torch.nn import Identity\n")
    monkeypatch.syspath_prepend(place)
    with pytest.raises(ConfigError, match=r"^model\._target_=stranger\.Identity; allowed are classes under src\., "):
        build_part("model", {"_target_": "stranger.Identity"})
    assert not (place / "mark").exists()
    locate("stranger.Identity")
    assert (place / "mark").exists()
    del sys.modules["stranger"]


class Marker(nn.Module):
    """Of the right kind, but from somewhere else."""

    def __init__(self, path: str) -> None:
        super().__init__()
        Path(path).touch()


def test_a_class_of_the_right_kind_behind_an_alias(
    place: Path, monkeypatch: pytest.MonkeyPatch, without_the_guard: Callable[..., None]
) -> None:
    monkeypatch.setattr("src.models.unet.Alias", Marker, raising=False)
    node = {"_target_": "src.models.unet.Alias", "path": str(place / "mark")}
    with pytest.raises(ConfigError, match=r"^model\._target_=src\.models\.unet\.Alias; model needs a subclass of Module$"):
        build_part("model", node)
    assert not is_harmed(place)
    without_the_guard("model", node)
    assert is_harmed(place)


@pytest.mark.parametrize("escapes", ["", "\\", "\\\\"], ids=["bare", "escaped", "escaped twice"])
def test_an_interpolation_cannot_bring_in_a_target(escapes: str, place: Path, without_the_guard: Callable[..., None]) -> None:
    """Values were filled in before the check; what still looks like an interpolation must not be filled in after it."""
    smuggled = f"{escapes}${{oc.create:{{_target_:numpy.save,file:'{place / 'mark'}',arr:[1]}}}}"
    nodes: list[dict[str, Any]] = [
        {"_target_": "torch.nn.Identity", "anything": smuggled},
        {"_target_": "torch.nn.Identity", "anything": {"deeper": [smuggled]}},
        {"_target_": "torch.nn.Sequential", "args": smuggled},
    ]
    for node in nodes:
        with pytest.raises(ConfigError, match=r"^loss.*: an interpolation that was not filled in"):
            build_part("loss", node)
    assert not is_harmed(place)
    if not escapes:
        without_the_guard("loss", nodes[0])
        assert is_harmed(place)


def test_a_payload_of_the_command_line_is_refused(place: Path, without_the_guard: Callable[..., None]) -> None:
    """As composed by Hydra, with its interpolations filled in: neither text nor node gets past by another way."""
    words = [
        "model._target_=src.checkpoint.shutil.copyfile",
        f"+model.src='{place / 'pickled'}'",
        f"+model.dst='{place / 'mark'}'",
    ]
    for more in ([], ["++model._partial_=true"], ["model._target_=${oc.decode:src.checkpoint.shutil.copyfile}"]):
        _, config = prepare("config", [*words, *more])
        with pytest.raises(ConfigError, match=r"^model\._"):
            build.build_model(config, 3)
    assert not is_harmed(place)
    _, config = prepare("config", words)
    node = {key: config.model[key] for key in ("_target_", "src", "dst")}
    without_the_guard("model", node)
    assert is_harmed(place)


@pytest.mark.parametrize(
    "target",
    [
        "code.InteractiveInterpreter",
        "builtins.eval",
        "torch.nn.functional.importlib.import_module",
        "torch.optim.lr_scheduler.types.CodeType",
        "torch.hub.load",
        "src.run_folder.RunFolder",
        "src.checkpoint.Checkpoints",
        "albumentations.load",
        "torch.nn",
        "torch.nn.NoSuchClass",
        "torch.nn.",
        "torch.optimizer.SGD",
        "srcs.models.unet.UNet",
        "SGD",
        "",
        None,
        3,
        ["torch.nn.Identity"],
    ],
)
@pytest.mark.parametrize("group", KINDS)
def test_a_target_that_is_no_class_of_ours_is_refused(group: str, target: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{group}._target_={target}")):
        build_part(group, {"_target_": target})


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("optimizer", "torch.nn.Linear"),
        ("model", "torch.optim.SGD"),
        ("loss", "torch.optim.lr_scheduler.StepLR"),
        ("scheduler", "torch.optim.SGD"),
        ("dataset", "src.models.unet.UNet"),
        ("augmentation", "src.datasets.camvid.CamVid"),
        ("model", "albumentations.HorizontalFlip"),
    ],
)
def test_a_target_of_another_group_is_refused(group: str, target: str) -> None:
    kinds = " or ".join(kind.__name__ for kind in KINDS[group])
    with pytest.raises(ConfigError, match=rf"^{group}\._target_={re.escape(target)}; {group} needs a subclass of {kinds}$"):
        build_part(group, {"_target_": target})


@pytest.mark.parametrize("node", [None, {}, [], "src.models.unet.UNet", {"channels": [4, 8]}])
def test_a_group_without_a_target_is_refused(node: Any) -> None:
    with pytest.raises(ConfigError, match=r"^model: needs a _target_, as in conf/model/\*\.yaml$"):
        build_part("model", node)


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_call_", "_recursive_", "_convert_", "_mode_"])
def test_hydras_own_keys_are_no_arguments(key: str) -> None:
    value: Any = {"_args_": [8], "_convert_": "none", "_mode_": "call"}.get(key, True)
    unet = {"_target_": "src.models.unet.UNet", "channels": [4, 8], key: value}
    with pytest.raises(ConfigError, match=re.escape(f"model.{key}: ")):
        build_part("model", unet, num_classes=3)
    flip = {"_target_": "albumentations.HorizontalFlip", "p": 0.5, key: value}
    with pytest.raises(ConfigError, match=re.escape(f"augmentation.transforms[0].{key}: ")):
        build_part("augmentation", {"_target_": "src.datasets.augmentation.Augmentation", "transforms": [flip]})


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_recursive_", "_convert_"])
def test_nor_of_a_class_that_takes_any_keyword(key: str) -> None:
    value: Any = {"_args_": [8], "_convert_": "none"}.get(key, True)
    with pytest.raises(ConfigError, match=re.escape(f"loss.{key}: ")):
        build_part("loss", {"_target_": "torch.nn.Identity", key: value})


def test_the_check_itself_passes_what_conf_names() -> None:
    targets = []
    for file in CONF.glob("*/*.yaml"):
        node = OmegaConf.load(file)
        assert isinstance(node, DictConfig)
        if file.parent.name in KINDS:
            assert isinstance(node.get("_target_"), str)
            targets.append((file.parent.name, node["_target_"]))
    assert len(targets) >= 15
    for group, target in targets:
        cls = locate(target)
        assert issubclass(cls, KINDS[group]), f"{group}: {target}"


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError(), "ValueError"), (TypeError(" \n"), "TypeError"), (ValueError("a\nb"), "a")]
)
def test_a_constructor_that_refuses_without_a_word_is_told_of_by_the_kind_of_its_error(error: Exception, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^loss: {said}$"), in_words("loss"):
        raise error
