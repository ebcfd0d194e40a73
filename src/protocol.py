"""What a score must share with another to be ranked with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.durable import sha256

if TYPE_CHECKING:
    from src.datasets.reader import SegmentationDataset


def describe_protocol(
    scored: "SegmentationDataset", training_data: str | None, pretraining: str | None, size: str = "training"
) -> dict[str, Any]:
    """Split, labels, void rule, size and resize rule of a score, its data, and what the network was trained on.

    Args:
        scored: The split.
        training_data: Fingerprint of the split that was trained on.
        pretraining: See `describe_pretraining`.
        size: `training`, or `full` where logits were brought to each mask's own size.
    """
    facts = scored.protocol | {
        "scored_data": scored.fingerprint,
        "training_data": training_data or "unknown",
        "pretraining": pretraining or "unknown",
    }
    if size == "full" and facts["scored_size"] != "native":
        facts |= {"scored_size": "native", "resize": "image bilinear, logits bilinear to the mask's own size"}
    return facts


def describe_pretraining(weights: str | None, earlier: dict[str, Any]) -> str:
    """`none`, or the SHA-256 of the file that training started from.

    Args:
        weights: The file's path, or None.
        earlier: Protocol of the run so far: one that goes on began with the file as it was then.
    """
    if "pretraining" in earlier:
        return str(earlier["pretraining"])
    if weights is None:
        return "none"
    return sha256(Path(weights)) if Path(weights).is_file() else "unknown"
