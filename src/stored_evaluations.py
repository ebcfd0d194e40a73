"""Evaluations on disk: scores as JSON, and beside it the confusion matrix of each image."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.durable import replace_text, write_durably
from src.errors import UserError
from src.protocol import complete_protocol


@dataclass(frozen=True)
class Evaluation:
    """Of one checkpoint on one split.

    Attributes:
        names: Of the images, video by video, in the order in which they were filmed.
        sequences: The video that each is from.
        confusion: int64 [images, classes, classes], truth by prediction.
        facts: Scores, protocol, and what was scored.
    """

    names: list[str]
    sequences: list[str]
    confusion: NDArray[np.int64]
    facts: dict[str, Any]

    @property
    def scores(self) -> dict[str, Any]:
        """Of the whole split: `miou`, `pixel_accuracy`, `class_accuracy`, `iou` by class, and how many `images`."""
        return self.facts["scores"]

    @property
    def protocol(self) -> dict[str, Any]:
        """What a score must share with another to be ranked with it."""
        return complete_protocol(self.facts["protocol"])

    @property
    def fingerprint(self) -> str:
        """Of the protocol."""
        return self.facts["protocol_fingerprint"]

    @property
    def class_names(self) -> list[str]:
        """Of the scored classes; class i has id i."""
        return self.facts["class_names"]


def evaluation_file(folder: Path, split: str = "val", checkpoint: str = "best", size: str = "training") -> Path:
    """Where a run's folder keeps this evaluation."""
    return folder / "evaluations" / f"{split}_{checkpoint}_{size}.json"


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """Writes it into a run's folder and gives the path of the JSON; the same content, the same bytes."""
    facts = evaluation.facts
    file = evaluation_file(folder, facts["split"], facts["checkpoint"], facts["size"])
    file.parent.mkdir(exist_ok=True)
    packed = pack(
        confusion=evaluation.confusion,
        names=np.array(evaluation.names, np.str_),
        sequences=np.array(evaluation.sequences, np.str_),
    )
    write_durably(file.with_suffix(".npz"), lambda opened: opened.write(packed))
    replace_text(file, json.dumps(facts, indent=2, allow_nan=False) + "\n")
    return file


def pack(**arrays: np.ndarray) -> bytes:
    """What `numpy.savez_compressed` would write, with the same date in it whenever it is written."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def read_evaluation(file: Path) -> Evaluation:
    """What `write_evaluation` wrote, from the path of its JSON.

    Raises:
        UserError: If it is not there or damaged.
    """
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError(f"holds {type(facts).__name__}, expected a dictionary of facts")
        with file.with_suffix(".npz").open("rb") as packed, np.load(packed, allow_pickle=False) as arrays:
            names, sequences = arrays["names"].tolist(), arrays["sequences"].tolist()
            evaluation = Evaluation(names, sequences, arrays["confusion"], facts)
        if missing := [key for key in ("scores", "protocol", "protocol_fingerprint", "class_names") if key not in facts]:
            raise ValueError(f"lacks {', '.join(missing)}")
        if len({len(names), len(sequences), len(evaluation.confusion)}) > 1 or names != facts["names"]:
            raise ValueError("its two files do not belong together")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: not an evaluation ({error}); python -m src.evaluate writes it") from error
    return evaluation
