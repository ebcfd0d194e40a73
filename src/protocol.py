"""What a score must share with another to be ranked with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.durable import sha256
from src.run_folder import short_hash

if TYPE_CHECKING:
    from src.datasets.reader import SegmentationDataset

# Facts that protocols came to state only later. A protocol without one was scored by the rule given here.
LATER = {"absent_classes": "left out of the mean"}  # classes without a pixel in the ground truth, see metrics.compute_scores


def describe_protocol(
    scored: "SegmentationDataset", training_data: str | None, pretraining: str | None, size: str = "training"
) -> dict[str, Any]:
    """Split, labels, rules for void and absent classes, size and resize rule of a score, its data, and what was trained on.

    Args:
        scored: The split.
        training_data: Fingerprint of the split that was trained on.
        pretraining: See `describe_pretraining`.
        size: `training`, or `full` where logits were brought to each mask's own size.
    """
    facts = (
        scored.protocol
        | LATER
        | {
            "scored_data": scored.fingerprint,
            "training_data": training_data or "unknown",
            "pretraining": pretraining or "unknown",
        }
    )
    if size == "full" and facts["scored_size"] != "native":
        facts |= {"scored_size": "native", "resize": "image bilinear, logits bilinear to the mask's own size"}
    return facts


def protocol_fingerprint(protocol: dict[str, Any]) -> str:
    """Short hash of a protocol.

    A fact of `LATER` counts only where its value is another one, so that stored scores, whose fingerprints cannot be computed
    again everywhere, keep theirs and are ranked with new ones that were taken in the same way.
    """
    return short_hash({key: value for key, value in protocol.items() if LATER.get(key) != value})


def complete_protocol(stored: dict[str, Any]) -> dict[str, Any]:
    """A protocol as it was stored, with the facts that were not stated yet; an empty one says nothing and stays empty."""
    return LATER | stored if stored else {}


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
