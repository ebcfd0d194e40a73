"""Composition: every option, what beats what, and the recipe of the original script."""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import MISSING, DictConfig, OmegaConf

from src.composing import compose_checked, prepare, result_id
from src.config import HARMLESS_KEYS, Config, LoaderConfig, MonitorConfig, TrainingConfig, check_config, is_harmless
from src.errors import ConfigError

CONF = Path(__file__).parent.parent / "conf"
GROUPS = {
    folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in sorted(CONF.iterdir()) if folder.is_dir()
}
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
OVERLAYS = ("study", "experiment")
PARTS = ("model", "loss", "optimizer", "scheduler", "augmentation")
PAIRS = [(experiment, group, option) for experiment in GROUPS["experiment"] for group in PARTS for option in GROUPS[group]]


@functools.cache
def composed(*overrides: str) -> DictConfig:
    """conf/config.yaml with these overrides, composed as Hydra does it, interpolations filled in. Not to be changed."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", list(overrides))
    OmegaConf.resolve(config)
    return config


def plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {key: value for name, node in tree.items() for key, value in flat(node, f"{prefix}.{name}".lstrip(".")).items()}


def own_values(group: str, option: str, config: dict[str, Any]) -> dict[str, Any]:
    """The option's own YAML file, read without Hydra, with its interpolations filled in from the rest of `config`."""
    text = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")
    whole = OmegaConf.create({**config, group: yaml.safe_load(text)})
    filled_in: Any = OmegaConf.to_container(whole[group], resolve=True)
    return {str(key): value for key, value in filled_in.items()}


def as_config(config: DictConfig) -> Config:
    built = OmegaConf.to_object(config)
    assert isinstance(built, Config)
    return built


def test_every_group_was_found() -> None:
    names = {"augmentation", "dataset", "experiment", "loss", "model", "optimizer", "scheduler", "study"}
    assert names <= set(GROUPS)
    assert all(GROUPS.values())
    assert len(OPTIONS) == len(list(CONF.glob("*/*.yaml"))) >= 20
    for group in PARTS:
        assert len(GROUPS[group]) >= 2, f"conf/{group}/ asks no question"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str) -> None:
    config = composed(f"{group}={option}")
    check_config(as_config(config))
    if group not in OVERLAYS:
        assert plain(config)[group] == own_values(group, option, plain(config))


@pytest.mark.parametrize("group", ["model", "dataset", "augmentation", "loss", "optimizer", "scheduler"])
def test_every_part_says_what_it_builds_and_in_which_words(group: str) -> None:
    for option in GROUPS[group]:
        text = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# "), f"conf/{group}/{option}.yaml does not begin with what it is"
        assert yaml.safe_load(text)["_target_"].rpartition(".")[2].isidentifier()


@pytest.mark.parametrize("experiment", GROUPS["experiment"])
def test_an_overlay_beats_config_yaml(experiment: str) -> None:
    overlay = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    chosen = {key.removeprefix("override /"): option for entry in overlay.pop("defaults") for key, option in entry.items()}
    config = plain(composed(f"experiment={experiment}"))
    expected = flat(overlay)
    assert expected
    assert {key: value for key, value in flat(config).items() if key in expected} == expected
    for group, option in chosen.items():
        assert config[group]["_target_"] == yaml.safe_load((CONF / group / f"{option}.yaml").read_text("utf-8"))["_target_"]
    before = flat(plain(composed()))
    assert any(before.get(key) != value for key, value in expected.items()), "an overlay that changes nothing"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("training: {epocs: 2}", "study/mine.yaml: training.epocs: no such key, did you mean training.epochs?; training has "),
        (
            "training: {epochs: two}",
            "study/mine.yaml: training.epochs: Value 'two' of type 'str' could not be converted to Integer",
        ),
        ("thread: 1", "study/mine.yaml: thread: no such key, did you mean threads?; the configuration has "),
        ("zzz: 1", "study/mine.yaml: zzz: no such key; the configuration has augmentation, dataset"),
    ],
)
def test_a_mistake_in_a_file_of_conf_is_told_with_the_file(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(f"# @package _global_\n{lines}\n")
    words = ["study=mine", f"hydra.searchpath=['{tmp_path}']"]
    with pytest.raises(ConfigError) as refused:
        compose_checked("config", words)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_the_command_line_beats_an_overlay() -> None:
    overlay = plain(composed("experiment=original"))
    assert (overlay["optimizer"]["lr"], overlay["training"]["epochs"], overlay["seed"]) == (0.1, 50, 17)

    for words in (
        ["experiment=original", "optimizer.lr=0.5", "training.epochs=3", "seed=4", "dataset.image_size=[96,128]"],
        ["optimizer.lr=0.5", "training.epochs=3", "seed=4", "dataset.image_size=[96,128]", "experiment=original"],
    ):
        config = plain(composed(*words))
        assert config["optimizer"]["lr"] == 0.5
        assert config["training"]["epochs"] == 3
        assert config["seed"] == 4
        assert config["dataset"]["image_size"] == [96, 128]
        assert config["loader"]["batch_size"] == 32  # still the overlay's

    for words in (["experiment=original", "optimizer=adamw"], ["optimizer=adamw", "experiment=original"]):
        assert plain(composed(*words))["optimizer"]["_target_"] == "torch.optim.AdamW"
    config = plain(composed("experiment=original", "optimizer=adamw", "optimizer.lr=0.25"))
    assert config["optimizer"] == own_values("optimizer", "adamw", config) | {"lr": 0.25}


@pytest.mark.parametrize(("experiment", "group", "option"), PAIRS)
def test_no_overlay_leaks_into_another_option(experiment: str, group: str, option: str) -> None:
    config = composed(f"{group}={option}", f"experiment={experiment}")
    check_config(as_config(config))
    node, own = plain(config)[group], own_values(group, option, plain(config))
    assert node == own


def test_interpolations_follow_what_they_refer_to() -> None:
    assert composed("scheduler=cosine", "training.epochs=7").scheduler.T_max == 7
    assert composed("scheduler=poly", "training.epochs=7").scheduler.total_iters == 7
    assert composed("augmentation=crop", "dataset.image_size=[96,128]").augmentation.transforms[0].size == [96, 128]


def test_the_root_of_camvid_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    compose_anew = composed.__wrapped__
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    assert compose_anew().dataset.root == "data/camvid"
    monkeypatch.setenv("CAMVID_ROOT", "/somewhere/else")
    assert compose_anew().dataset.root == "/somewhere/else"
    assert compose_anew("dataset.root=here").dataset.root == "here"


def test_the_schema_and_config_yaml_have_the_same_keys() -> None:
    """Types in the one place and values in the other, none in both and none in neither."""
    primary = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    defaults = {name for entry in primary.pop("defaults") if isinstance(entry, dict) for name in entry}
    primary.pop("hydra")
    nodes = {"monitor": MonitorConfig, "training": TrainingConfig, "loader": LoaderConfig}
    for name, node in nodes.items():
        assert primary[name].keys() == {field.name for field in dataclasses.fields(node)}
    fields = {field.name for field in dataclasses.fields(Config)}
    assert fields == primary.keys() | (defaults & fields)
    assert not primary.keys() & defaults
    assert None not in (primary["seed"], primary["device"], primary["precision"])


def test_no_default_hides_in_the_schema() -> None:
    for node in (Config, MonitorConfig, TrainingConfig, LoaderConfig):
        for field in dataclasses.fields(node):
            if field.default_factory is dataclasses.MISSING and field.name != "study":  # study: null where none is chosen
                assert field.default == MISSING, f"{node.__name__}.{field.name}"
    assert Config().study is None


def test_nothing_is_missing_after_composition() -> None:
    for words in ([], *([f"experiment={name}"] for name in GROUPS["experiment"])):
        assert not OmegaConf.missing_keys(composed(*words))


def test_harmless_keys_exist() -> None:
    config = composed()
    for key in HARMLESS_KEYS:
        assert OmegaConf.select(config, key, default="absent") != "absent", key


def test_a_key_that_no_schema_has_does_not_compose() -> None:
    with pytest.raises(ConfigCompositionException):
        composed("training.epoch=3")


def with_value(key: str, value: Any) -> Config:
    """The default configuration with one value replaced, as `check_config` gets it."""
    config: Any = as_config(composed())
    node = functools.reduce(getattr, key.split(".")[:-1], config)
    assert hasattr(node, key.rpartition(".")[2])
    setattr(node, key.rpartition(".")[2], value)
    return config


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("training.epochs", 0, "whole numbers from 1 to 1000000"),
        ("training.patience", 0, "whole numbers from 1 to 1000000"),
        ("training.checkpoint_every", 0, "whole numbers from 1 to 1000000"),
        ("training.checkpoint_keep", 0, "whole numbers from 1 to 1000000"),
        ("training.log_every", 0, "whole numbers from 1 to 1000000"),
        ("training.panel_every", 0, "whole numbers from 1 to 1000000"),
        ("training.panel_images", 0, "whole numbers from 1 to 1024"),
        ("loader.batch_size", -4, "whole numbers from 1 to 65536"),
        ("loader.num_workers", -1, "whole numbers from 0 to 256"),
        ("threads", 0, "whole numbers from 1 to 1024"),
        ("seed", -1, "whole numbers from 0 to 4294967295"),
        ("precision", "bf17", "auto, fp32, bf16, fp16"),
        ("monitor.mode", "most", "max, min"),
        ("device", "gpu", "auto, cpu, cuda, cuda:1 (any number), mps"),
        ("device", "cuda:", "auto, cpu, cuda, cuda:1 (any number), mps"),
        ("device", "cpu\n", "auto, cpu, cuda, cuda:1 (any number), mps"),
    ],
)
def test_a_value_outside_its_range_is_refused(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(with_value(key, value))
    assert str(caught.value) == f"{key}={value}; allowed are {allowed}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.epochs", 1),
        ("training.patience", None),
        ("loader.num_workers", 0),
        ("seed", 0),
        ("threads", None),
        ("device", "cuda:12"),
        ("precision", "fp16"),
        ("monitor.mode", "min"),
    ],
)
def test_the_ends_of_a_range_belong_to_it(key: str, value: Any) -> None:
    check_config(with_value(key, value))


ORIGINAL = {  # every key that decides the result, from the description of the original script
    "seed": 17,
    "device": "auto",
    "precision": "fp32",
    "threads": None,
    "deterministic": False,
    "monitor.tag": "val/miou",
    "monitor.mode": None,
    "training.epochs": 50,
    "training.patience": None,
    "training.on_nonfinite": "stop",
    "training.max_skipped": 3,
    "training.sync_batchnorm": False,
    "loader.batch_size": 32,
    "loader.drop_last": True,
    "model._target_": "src.models.attunet.AttU_Net",
    "model.channels": [64, 128, 256, 512, 1024],
    "model.gate_channels": None,
    "model.upsampling": "transpose",
    "model.init": "normal",
    "model.init_gain": 0.02,
    "model.weights": None,
    "dataset._target_": "src.datasets.camvid.CamVid",
    "dataset.layout": None,
    "dataset.labels": "index",
    "dataset.num_classes": 33,
    "dataset.class_names": None,
    "dataset.ignore_index": 255,
    "dataset.image_size": [224, 224],
    "dataset.mask_resize": "floor",
    "augmentation._target_": "src.datasets.augmentation.Augmentation",
    "augmentation.transforms": [
        {"_target_": "albumentations.HorizontalFlip", "p": 0.5},
        {"_target_": "albumentations.VerticalFlip", "p": 0.5},
    ],
    "loss._target_": "src.losses.CrossEntropy",
    "loss.class_weights": "none",
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.lr": 0.1,
    "optimizer.momentum": 0.0,
    "optimizer.weight_decay": 0.0,
    "optimizer.nesterov": False,
    "optimizer.fused": True,
    "scheduler._target_": "torch.optim.lr_scheduler.StepLR",
    "scheduler.step_size": 50,
    "scheduler.gamma": 0.1,
    "scheduler.warmup_epochs": 0,
}


def deciding(config: DictConfig) -> dict[str, Any]:
    """The keys that decide the result."""
    return {key: value for key, value in flat(plain(config)).items() if not is_harmless(key)}


def test_the_original_recipe_to_the_letter() -> None:
    config = composed("experiment=original")
    assert deciding(config) == ORIGINAL
    training = plain(config)["training"]
    assert (training["checkpoint_every"], training["checkpoint_keep"]) == (5, 10)  # 50 epochs by 5: none of them is removed


def test_the_original_recipe_does_not_depend_on_the_defaults(tmp_path: Path) -> None:
    """Composed with a copy of conf/ in which every default that the overlay could fall back on has another value."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    for file in (conf / "config.yaml", conf / "model/attunet.yaml", conf / "optimizer/sgd.yaml", conf / "dataset/camvid.yaml"):
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        if "defaults" in tree:
            chosen = {"model": "unet", "dataset": "streets", "augmentation": "crop", "optimizer": "adamw", "scheduler": "cosine"}
            defaults = [{**entry, **{g: chosen[g] for g in entry if g in chosen}} if isinstance(entry, dict) else entry
                        for entry in tree["defaults"]]  # fmt: skip
            assert defaults != tree["defaults"]
            tree["defaults"] = defaults
        kept = {key: tree.pop(key) for key in ("defaults", "hydra", "_target_", "layout") if key in tree}
        file.write_text(yaml.safe_dump({**kept, **changed(tree)}, sort_keys=False), encoding="utf-8")
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        default, original = compose("config"), compose("config", ["experiment=original"])
    assert (default.seed, default.training.epochs, default.precision) == (1, 51, "other")  # the copy's
    assert deciding(original) == ORIGINAL


def changed(value: Any) -> Any:
    """Another value of the same kind in place of each; null becomes a number."""
    if isinstance(value, dict):
        return {key: changed(item) for key, item in value.items()}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {str: "other", list: [1], type(None): 7}[type(value)]


def test_gates_of_half_the_width_have_the_id_that_they_had_before_there_was_a_choice() -> None:
    chosen = {width: prepare("config", [f"model.gate_channels={width}"])[0] for width in ("null", "[32,64,128,256]")}
    before = chosen["null"].config | {"model": {k: v for k, v in chosen["null"].config["model"].items() if k != "gate_channels"}}
    assert result_id(before) == chosen["null"].short_id != chosen["[32,64,128,256]"].short_id
