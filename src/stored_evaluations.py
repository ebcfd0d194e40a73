"""Evaluations on disk: scores as JSON, and beside it the confusion matrix of each image."""

import io
import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.durable import replace_text, write_durably
from src.errors import UserError
from src.protocol import complete_protocol
from src.stored_files import read_bytes, within
from src.stored_json import EvaluationFacts, read_json

MOST_UNPACKED = 2**30  # bytes of an array


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
    within(folder, "evaluations").mkdir(exist_ok=True)
    packed = pack(
        confusion=evaluation.confusion,
        names=np.array(evaluation.names, np.str_),
        sequences=np.array(evaluation.sequences, np.str_),
    )
    write_durably(file.with_suffix(".npz"), lambda opened: opened.write(packed))
    facts = facts | {"counts_sha256": sha256(packed).hexdigest()}
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
    folder, advice = file.parent.parent, "python -m src.evaluate writes it"
    try:
        facts = read_json(folder, f"{file.parent.name}/{file.name}", EvaluationFacts)
        content = read_bytes(folder, f"{file.parent.name}/{file.stem}.npz")
        if facts.get("counts_sha256") not in (None, sha256(content).hexdigest()):
            raise ValueError("its two files do not belong together")
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            confusion, names, sequences = (unpack(packed, name) for name in ("confusion", "names", "sequences"))
        check_counts(confusion, len(facts["names"]), len(facts["class_names"]))
        if names.tolist() != facts["names"] or sequences.shape != names.shape or sequences.dtype.kind != "U":
            raise ValueError("its two files do not belong together")
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for what is not theirs
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file.with_suffix('.npz')}: not of an evaluation ({first_line}); {advice}") from error
    return Evaluation(facts["names"], sequences.tolist(), confusion, facts)


def unpack(packed: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of what `pack` made."""
    if (size := packed.getinfo(f"{name}.npy").file_size) > MOST_UNPACKED:
        raise ValueError(f"{name} has {size} bytes; it may have {MOST_UNPACKED}")
    content = io.BytesIO(packed.read(f"{name}.npy"))  # whole, so that its CRC is checked
    return np.lib.format.read_array(content, allow_pickle=False)


def check_counts(confusion: np.ndarray, images: int, classes: int) -> None:
    """Raises ValueError unless these are counts of pixels: of each image a square of at least so many classes."""
    is_square = confusion.ndim == 3 and confusion.shape[1] == confusion.shape[2] >= classes
    if confusion.dtype != np.int64 or not is_square or len(confusion) != images or (confusion < 0).any():
        wanted = f"int64 of {images} images and {classes} classes or more, none negative"
        raise ValueError(f"confusion is {confusion.dtype} {list(confusion.shape)}; it should be {wanted}")
