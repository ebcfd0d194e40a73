"""Scores a checkpoint on a split: one confusion matrix for each image, from which all else follows."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from src.build import build_model, build_part
from src.config import Config
from src.datasets.frame_names import frame_order
from src.datasets.reader import SegmentationDataset
from src.datasets.sampler import EpochSampler
from src.device import Compute, Normalize, choose_compute
from src.diagnosis.leakage import check_leakage
from src.durable import sha256
from src.errors import CheckpointError
from src.loading import build_loader, worker_errors
from src.metrics import compute_scores, count_confusion
from src.protocol import describe_pretraining, describe_protocol, protocol_fingerprint
from src.restore import check_fit, read_checkpoint, read_manifests_or_warn
from src.run_folder import read_run
from src.seeding import use_determinism
from src.stored_config import StoredConfig
from src.stored_evaluations import Evaluation


@dataclass(frozen=True)
class Request:
    """What is scored: `split` val or test, `size` training or full, `checkpoint` best or last."""

    split: str
    size: str
    checkpoint: str


def evaluate_checkpoint(folder: Path, config: StoredConfig, request: Request) -> Evaluation:
    """Scores a run's checkpoint, with the run's own configuration.

    Raises:
        CheckpointError: If there is none, or it is damaged.
        DataError: If the split is not there, or shares an image with one that the run learnt from.
    """
    scored = load_scored(folder, config, request)
    data, saved, run = scored.data, scored.saved, read_run(folder)
    fingerprints = run.get("data_fingerprint") or {}
    leakage = check_leakage(data, functools.partial(build_split, config), fingerprints)
    order = frame_order(data.names, data.sequences)
    with worker_errors(config.loader.num_workers):
        confusion = count_each(scored, config, request.size)[order]
    sequences = [data.sequences[index] for index in order]
    class_names = [label.name for label in data.classes]
    before = run.get("protocol") or {}
    weights = config.model.get("weights")
    pretraining = describe_pretraining(None if weights is None else str(weights), before)
    protocol = describe_protocol(data, fingerprints.get("train"), pretraining, request.size)
    return Evaluation(
        names=[data.names[index] for index in order],
        sequences=sequences,
        confusion=confusion,
        facts={
            "run": folder.resolve().name,
            "split": request.split,
            "size": request.size,
            "checkpoint": request.checkpoint,
            "epoch": saved["epoch"],
            "step": saved["step"],
            "checkpoint_sha256": sha256(checkpoint_file(folder, request)),
            "device": scored.compute.name,
            "precision": scored.compute.precision,
            "class_names": class_names,
            "leakage": leakage,
            "protocol": protocol,
            "protocol_fingerprint": protocol_fingerprint(protocol),
            "scores": score(confusion, class_names),
            "sequences": score_sequences(confusion, sequences, class_names),
            "names": [data.names[index] for index in order],
        },
    )


@dataclass(frozen=True)
class Scored:
    """A checkpoint ready to be scored: its network and what was saved with it, the split, the device."""

    model: nn.Module
    saved: dict[str, Any]
    data: SegmentationDataset
    compute: Compute


def load_scored(folder: Path, config: StoredConfig, request: Request) -> Scored:
    """The network of a run's checkpoint and the split; raises as `evaluate_checkpoint` does."""
    use_determinism(config.deterministic)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    compute = choose_compute(config.device, config.precision)
    file = checkpoint_file(folder, request)
    saved = read_saved(file)
    data = build_split(config, request.split)
    model = build_model(config, data.num_classes)
    check_fit(file, saved["model"], model)
    model.load_state_dict(saved["model"])
    model = model.to(compute.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Scored(model.eval(), saved, data, compute)


def checkpoint_file(folder: Path, request: Request) -> Path:
    """Where a run keeps it."""
    return folder / "checkpoints" / f"{request.checkpoint}.pt"


def read_saved(file: Path) -> dict[str, Any]:
    """A whole checkpoint of a run, checked against the manifests beside it; a warning says where there are none."""
    saved = read_checkpoint(file, read_manifests_or_warn(file.parent))
    if not isinstance(saved.get("model"), dict) or not all(isinstance(saved.get(key), int) for key in ("epoch", "step")):
        raise CheckpointError(f"{file}: no checkpoint of a run (needed are model, epoch and step); see model.weights for others")
    return saved


def build_split(config: StoredConfig, split: str) -> SegmentationDataset:
    """A split as validation sees it: never augmented."""
    facts = {"split": split, "augmentation": None, "seed": config.seed, "render": config.may_render}
    return build_part("dataset", config.dataset, **facts)


@torch.inference_mode()
def count_each(scored: Scored, config: Config, size: str) -> np.ndarray:
    """Confusion matrix of each image, int64 [images, classes, classes], truth by prediction."""
    data, compute = scored.data, scored.compute
    normalize = Normalize(compute.device, data.mean, data.std)
    loader = build_loader(config, compute, data, EpochSampler(len(data), config.seed, shuffle=False), drop_last=False)
    found: list[torch.Tensor] = []
    for images, masks in loader:
        with compute.autocast():
            logits = scored.model(normalize(images))
        for image_logits, mask in zip(logits.split(1), masks.split(1), strict=True):
            if size == "full":
                mask = torch.from_numpy(data.native_mask(len(found)))[None]
                image_logits = interpolate(image_logits.float(), mask.shape[1:], mode="bilinear", align_corners=False)
            found.append(count_confusion(image_logits, mask.to(compute.device), data.ignore_index))
    return torch.stack(found).cpu().numpy()


@torch.inference_mode()
def predict_each(scored: Scored, indices: Sequence[int]) -> list[np.ndarray]:
    """The predicted class of each pixel of these images of the split, at the training size: uint8 [height, width]."""
    data, compute = scored.data, scored.compute
    normalize = Normalize(compute.device, data.mean, data.std)
    found = []
    for index in indices:
        with compute.autocast():
            logits = scored.model(normalize(data.batch([(0, index)])[0]))
        found.append(logits[0].argmax(0).to(torch.uint8).cpu().numpy())
    return found


def score(confusion: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """Scores of the images together; a score that nothing says anything of is None."""
    scores = compute_scores(confusion.sum(0), class_names)
    totals = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy, "class_accuracy": scores.class_accuracy}
    return {"images": len(confusion), **_known(totals), "iou": _known(scores.iou)}


def score_sequences(confusion: np.ndarray, sequences: list[str], class_names: list[str]) -> dict[str, Any]:
    """`score` of each video."""
    names = np.array(sequences)
    return {name: score(confusion[names == name], class_names) for name in dict.fromkeys(sequences)}


def _known(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}
