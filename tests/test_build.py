"""What may be built, with which arguments, and which facts reach it."""

import dataclasses
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from src.build import build, build_model, build_part, build_splits, check, checked_datasets, forget_datasets
from src.config import Config
from src.errors import ConfigError, DataError
from src.targets import check_targets

CONF = Path(__file__).parent.parent / "conf"


def composed(*overrides: str) -> Config:
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composition = compose("config", list(overrides))
    OmegaConf.resolve(composition)
    config = OmegaConf.to_object(composition)
    assert isinstance(config, Config)
    return config


@pytest.fixture
def config(tiny_overrides: list[str]) -> Config:
    return composed(*tiny_overrides)


def with_node(config: Config, group: str, **values: Any) -> Config:
    return dataclasses.replace(config, **{group: getattr(config, group) | values})


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (
            "model",
            {"chanels": [4, 8]},
            r"^model\.chanels: no such argument, did you mean model\.channels\?; AttU_Net takes .*init",
        ),
        ("model", {"num_classes": 5}, r"^model\.num_classes: no such argument"),
        ("model", {"zzz": 5}, r"^model\.zzz: no such argument; AttU_Net takes "),
        ("optimizer", {"momentun": 0.9}, r"^optimizer\.momentun: no such argument, did you mean optimizer\.momentum\?"),
        ("optimizer", {"params": [1]}, r"^optimizer\.params: no such argument"),
        ("loss", {"class_weight": "none"}, r"^loss\.class_weight: no such argument, did you mean loss\.class_weights\?"),
        ("scheduler", {"T_mx": 3}, r"^scheduler\.T_mx: no such argument, did you mean scheduler\.T_max\?"),
        ("dataset", {"rot": "x"}, r"^dataset\.rot: no such argument, did you mean dataset\.root\?"),
        (
            "augmentation",
            {"transform": []},
            r"^augmentation\.transform: no such argument, did you mean augmentation\.transforms\?",
        ),
        ("model", {"channels": "wide"}, r"^model\.channels='wide'; allowed is "),
        ("model", {"channels": ["a"]}, r"^model\.channels=\['a'\]; allowed is Sequence\[int\]"),
        ("model", {"channels": [4.5, 8.5]}, r"^model\.channels=\[4\.5, 8\.5\]; allowed is Sequence\[int\]"),
        ("model", {"channels": [64]}, r"channels=\[64\]; allowed is"),
        ("model", {"init": "nosuch"}, r"^model\.init='nosuch'; allowed is normal or xavier or kaiming or orthogonal or default$"),
        ("model", {"init_gain": "big"}, r"^model\.init_gain='big'; allowed is "),
        ("optimizer", {"lr": "fast"}, r"^optimizer\.lr='fast'; allowed is .*float"),
        ("optimizer", {"lr": True}, r"^optimizer\.lr=True; allowed is .*float"),
        ("optimizer", {"lr": -1.0}, r"^optimizer: .*learning rate"),
        ("scheduler", {"T_max": 2.5}, r"^scheduler\.T_max=2\.5; allowed is int$"),
        ("scheduler", {"T_max": None}, r"^scheduler\.T_max=None; allowed is int$"),
        ("scheduler", {"warmup_epochs": -1}, r"^scheduler\.warmup_epochs=-1; allowed are whole numbers from 0$"),
        ("scheduler", {"warmup_epochs": "a"}, r"^scheduler\.warmup_epochs='a'; allowed are whole numbers from 0$"),
        ("dataset", {"labels": "camvid12"}, r"^dataset\.labels=camvid12; allowed are camvid11, camvid32, index$"),
        ("dataset", {"mask_resize": "exact"}, r"^dataset\.mask_resize='exact'; allowed is center or floor$"),
        ("dataset", {"image_size": 224}, r"^dataset\.image_size=224; allowed is "),
        ("dataset", {"image_size": [224]}, r"dataset\.image_size=\[224\]; allowed are \[height,width\]"),
        ("augmentation", {"transforms": [3]}, r"^augmentation\.transforms=\[3\]; allowed is "),
        ("loss", {"class_weights": "all"}, r"^loss\.class_weights='all'; allowed is none or median_frequency$"),
    ],
)
def test_a_wrong_argument_is_named(config: Config, group: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(with_node(config, group, **values))


def test_every_item_of_a_list_is_looked_at() -> None:
    """Not one at random, as beartype does."""
    node = {"_target_": "src.models.unet.UNet", "channels": [4, 8, 8, 8, 8, 8.5]}
    for _ in range(5):
        with pytest.raises(ConfigError, match=r"^model\.channels=\[4, 8, 8, 8, 8, 8\.5\]; allowed is Sequence\[int\]"):
            check_targets("model", node, {"num_classes": 3})


def test_an_argument_that_is_lacking_is_named(config: Config) -> None:
    node = {key: value for key, value in config.dataset.items() if key != "root"}
    with pytest.raises(ConfigError, match=r"^dataset\.root: CamVid needs it; set dataset\.root=VALUE$"):
        build(dataclasses.replace(config, dataset=node))


def test_a_whole_number_is_a_float_and_a_list_a_tuple() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2))]
    optimizer = build_part("optimizer", {"_target_": "torch.optim.AdamW", "lr": 1, "betas": [0.0, 0.5]}, params=weights)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["lr"] == 1
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.5)
    assert optimizer.param_groups[0]["params"] == weights


# ---- what is built ---------------------------------------------------------------------------------------------------


def test_facts_about_the_data_reach_the_model_and_the_loss(config: Config) -> None:
    tiny = build(config)
    assert tiny.setup.num_classes == 11
    assert tiny.setup.ignore_index == tiny.setup.loss.ignore_index == 11  # type: ignore[union-attr]
    assert tiny.state.model(torch.zeros(1, 3, 8, 8)).shape == (1, 11, 8, 8)

    other = build(with_node(config, "dataset", labels="index", num_classes=20, ignore_index=30))
    assert other.setup.num_classes == 20
    assert other.setup.ignore_index == other.setup.loss.ignore_index == 30  # type: ignore[union-attr]
    assert other.state.model(torch.zeros(1, 3, 8, 8)).shape == (1, 20, 8, 8)


def test_pixel_counts_of_the_training_split_reach_the_loss(config: Config) -> None:
    loss = build(with_node(config, "loss", class_weights="median_frequency")).setup.loss
    files = sorted((Path(config.dataset["root"]) / "trainannot").glob("*.png"))
    from PIL import Image

    masks = np.stack([np.asarray(Image.open(file)) for file in files])
    share = {label: np.mean([(mask == label).sum() for mask in masks if label in mask]) / masks[0].size for label in (0, 3, 8)}
    median = float(np.median(list(share.values())))
    assert isinstance(loss.weight, torch.Tensor)
    expected = torch.zeros(11)
    for label, value in share.items():
        expected[label] = median / value
    torch.testing.assert_close(loss.weight, expected)


def test_two_builds_with_one_seed_start_from_the_same_weights(config: Config) -> None:
    first, again = build(config), build(config)
    other = build(dataclasses.replace(config, seed=config.seed + 1))
    weights = first.state.model.state_dict()
    assert len(weights) > 10
    for name, value in again.state.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert any(not torch.equal(value, weights[name]) for name, value in other.state.model.state_dict().items())


def test_weights_depend_on_the_seed_alone(config: Config) -> None:
    """Neither the optimizer nor the augmentation, nor random numbers drawn before, may shift them."""
    weights = build(config).state.model.state_dict()
    torch.rand(17)
    values = composed("optimizer=adamw", "augmentation=none", "scheduler=cosine")
    other = dataclasses.replace(config, optimizer=values.optimizer, augmentation=values.augmentation, scheduler=values.scheduler)
    for name, value in build(other).state.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    ("init", "gain", "told"), [("kaiming", 0.02, 1), ("default", 0.02, 1), ("kaiming", None, 0), ("xavier", 0.02, 0)]
)
def test_a_gain_without_effect_is_told(
    config: Config, caplog: pytest.LogCaptureFixture, init: str, gain: float | None, told: int
) -> None:
    build(dataclasses.replace(config, model=dict(config.model) | {"init": init, "init_gain": gain}))
    said = f"model.init_gain={gain} has no effect: model.init={init} takes no gain; use model.init_gain=null"
    assert caplog.messages == [said] * told


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set(config: Config, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        build(dataclasses.replace(config, threads=threads))
        assert torch.get_num_threads() == threads
        build(dataclasses.replace(config, threads=None))
        assert torch.get_num_threads() == threads  # null leaves them
    finally:
        torch.set_num_threads(before)


def test_validation_is_never_augmented(config: Config) -> None:
    experiment = build(config)
    assert experiment.train_data.augmentation is not None
    assert experiment.val_data.augmentation is None
    assert (experiment.train_data.split, experiment.val_data.split) == ("train", "val")


def test_only_training_leaves_out_the_last_batch(config: Config) -> None:
    setup = build(dataclasses.replace(config, loader=dataclasses.replace(config.loader, batch_size=5, drop_last=True))).setup
    assert (len(setup.train_loader), len(setup.val_loader)) == (2, 1)
    setup = build(dataclasses.replace(config, loader=dataclasses.replace(config.loader, batch_size=5, drop_last=False))).setup
    assert len(setup.train_loader) == 3


def test_the_learning_rate_rises_over_the_warmup(config: Config) -> None:
    constant = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "eta_min": 0.4}
    state = build(with_node(with_node(config, "optimizer", lr=0.4), "scheduler", **constant, warmup_epochs=3)).state
    rates = []
    for _ in range(5):
        rates.append(state.optimizer.param_groups[0]["lr"])
        state.optimizer.step()
        state.scheduler.step()
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_an_epoch_without_a_batch_is_refused(config: Config) -> None:
    config = dataclasses.replace(config, loader=dataclasses.replace(config.loader, batch_size=13, drop_last=True))
    with pytest.raises(ConfigError, match=r"loader\.batch_size=13: .* 12 images.* loader\.drop_last=false"):
        build(config)


def test_a_batch_that_batchnorm_cannot_normalise_is_refused(config: Config) -> None:
    config = with_node(
        dataclasses.replace(config, loader=dataclasses.replace(config.loader, batch_size=1)), "model", channels=[2] * 6
    )
    with pytest.raises(ConfigError, match=r"1 image of 24x32 leaves BatchNorm a single value"):
        build(config)


# ---- check: what build raises, cheaply -------------------------------------------------------------------------------

BAD_POINTS: list[tuple[str, dict[str, Any]]] = [
    ("model", {"channels": [64]}),
    ("model", {"channels": ["a"]}),
    ("model", {"init": "nosuch"}),
    ("model", {"_target_": "torch.optim.SGD"}),
    ("optimizer", {"lr": "fast"}),
    ("optimizer", {"lr": -1.0}),
    ("optimizer", {"nesterov": True, "momentum": 0.0}),  # which needs momentum
    ("scheduler", {"T_mx": 3}),
    ("scheduler", {"warmup_epochs": -1}),
    ("dataset", {"root": "/no such folder"}),
    ("dataset", {"labels": "index"}),  # which needs num_classes
    ("augmentation", {"transforms": [{"_target_": "albumentations.HorizontalFlip", "q": 1}]}),
    ("loss", {"class_weights": "all"}),
    ("loss", {"clas_weights": "none"}),
]


@pytest.mark.parametrize(("group", "values"), BAD_POINTS)
def test_check_raises_what_build_raises(config: Config, group: str, values: dict[str, Any]) -> None:
    bad = with_node(config, group, **values)
    with pytest.raises((ConfigError, DataError)) as from_build:
        build(bad)
    with pytest.raises(type(from_build.value)) as from_check:
        check(bad)
    assert str(from_check.value) == str(from_build.value)


@pytest.mark.parametrize(
    ("num_workers", "transform", "message"),
    [(2, "HorizontalFlip", "loader.num_workers=2"), (0, "RandomBrightnessContrast", "RandomBrightnessContrast runs on the CPU")],
)
def test_what_the_device_cannot_hold_is_refused_before_a_sweep(
    config: Config, num_workers: int, transform: str, message: str
) -> None:
    bad = with_node(config, "dataset", cache="device")
    bad = with_node(bad, "augmentation", transforms=[{"_target_": f"albumentations.{transform}"}])
    bad = dataclasses.replace(bad, loader=dataclasses.replace(bad.loader, num_workers=num_workers))
    for make in (build, check):
        with pytest.raises(ConfigError, match=message):
            make(bad)


@pytest.mark.parametrize(
    "loader",
    [{"batch_size": 13, "drop_last": True}, {"batch_size": 99, "drop_last": True}],
    ids=lambda loader: str(loader["batch_size"]),
)
def test_check_refuses_the_batches_that_build_refuses(config: Config, loader: dict[str, Any]) -> None:
    bad = dataclasses.replace(config, loader=dataclasses.replace(config.loader, **loader))
    with pytest.raises(ConfigError) as from_build:
        build(bad)
    with pytest.raises(ConfigError) as from_check:
        check(bad)
    assert str(from_check.value) == str(from_build.value)


def test_check_reads_the_data_of_many_points_once_and_writes_nothing(
    config: Config, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def spy(dataset: Any, augmentation: Any, seed: int) -> Any:
        read.append(dataset["root"])
        return build_splits(dataset, augmentation, seed)

    monkeypatch.setattr("src.build.build_splits", spy)
    before = sorted(cache_home.iterdir())
    check(config)
    check(with_node(config, "model", init="kaiming"))
    assert len(read) == 1
    Path(config.dataset["root"]).rename(Path(config.dataset["root"]).with_name("moved"))
    with pytest.raises(DataError):
        check(with_node(config, "augmentation", transforms=[]))
    assert sorted(cache_home.iterdir()) == before


def test_checked_data_are_kept_until_they_are_forgotten(config: Config) -> None:
    kept = [weakref.ref(split) for split in checked_datasets(config)]
    assert [reference() for reference in kept] == list(checked_datasets(config))
    forget_datasets()
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_check_draws_no_weights(config: Config) -> None:
    """A network of 3.6 billion parameters, 14 GB, is checked as quickly as any."""
    model = dict(config.model) | {"channels": [64 * 2**depth for depth in range(8)]}
    check(dataclasses.replace(config, model=model))
    with torch.device("meta"):
        network = build_model(dataclasses.replace(config, model=model), 11)
    assert sum(weight.numel() for weight in network.parameters()) > 1e9
