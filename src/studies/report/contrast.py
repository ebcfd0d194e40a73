"""Finds where two checkpoints differ most, frame by frame, and what that looks like."""

import base64
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from src.datasets.reader import SegmentationDataset
from src.device import choose_compute
from src.durable import sha256
from src.errors import UserError
from src.evaluation import Request, evaluate_checkpoint, load_scored, predict_each
from src.stored_config import StoredConfig, read_stored_config
from src.stored_evaluations import Evaluation, evaluation_file, read_evaluation, write_evaluation
from src.studies.reading import Run
from src.studies.report.differences import Differences, Frame, best_two, pair_of
from src.studies.statistics.frames import compare_evaluations, frame_scores
from src.studies.statistics.sentences import say
from src.studies.statistics.standing import Table

MOST_FRAMES = 20
LONGEST_SIDE, QUALITY = 240, 70  # pixels of a picture, and of its JPEG: all of them stay under 600 KB
VOID = (225, 225, 225)  # CamVid's sky is a darker grey
VOID_ID = 255
BEST = Request("val", "training", "best")


@dataclass(frozen=True)
class Side:
    """One of the two: its run, with the configuration that it is scored with now."""

    label: str
    run: Run
    config: StoredConfig

    @cached_property
    def evaluation(self) -> Evaluation:
        """Of its best checkpoint on val."""
        return evaluation_of(self.run, self.config)

    @cached_property
    def scores(self) -> np.ndarray:
        """Of each frame."""
        return frame_scores(self.evaluation)


def find_differences(table: Table, root: str | None = None) -> Differences:
    """Evaluates the two checkpoints on val where that was not done yet, which stays in their folders, and compares them.

    Args:
        table: That ranks its configurations.
        root: Where the data are now; None: where they were.

    Raises:
        UserError: If there are no two configurations, or a checkpoint or the data are not at hand.
    """
    a, b = two = sides(table, root)
    sentence = say(compare_evaluations(a.evaluation, b.evaluation), a.label, b.label)
    order = np.argsort(-abs(a.scores - b.scores), kind="stable")[:MOST_FRAMES]
    names = [a.evaluation.names[place] for place in order]
    networks = [load_scored(side.run.folder, side.config, BEST) for side in two]
    predictions = [predict_each(network, [network.data.names.index(name) for name in names]) for network in networks]
    data = networks[0].data
    frames = [
        Frame(name, float(a.scores[place]), float(b.scores[place]), *pictures_of(data, name, masks))
        for name, place, *masks in zip(names, order, *predictions, strict=True)
    ]
    legend = [(label.name, f"#{bytes(label.color).hex()}") for label in data.classes]
    return Differences(
        pair=pair_of(table),
        labels=[side.label for side in two],
        runs=[side.run.folder.name for side in two],
        epochs=[side.evaluation.facts["epoch"] for side in two],
        sentence=sentence,
        num_frames=len(a.evaluation.names),
        frames=frames,
        legend=[*legend, ("void", f"#{bytes(VOID).hex()}")],
    )


def sides(table: Table, root: str | None) -> list[Side]:
    """The best runs of the first two rows, to be scored in the precision that each was trained in."""
    found = []
    for row, run in best_two(table):
        config = read_stored_config(run.folder, root)
        config.device, config.precision = "auto", str(run.facts.get("precision") or config.precision)
        config.loader.num_workers = 0
        found.append(Side(f"{row.label} (seed {run.seed})", run, config))
    if len(found) < 2:
        raise UserError("there are no two configurations")
    return found


def evaluation_of(run: Run, config: StoredConfig) -> Evaluation:
    """Of the run's best checkpoint on val: the one in its folder if made in this precision, or a new one that is left there."""
    file = evaluation_file(run.folder)
    with contextlib.suppress(UserError, OSError):  # none, or damaged: then anew
        before = read_evaluation(file)
        known = before.facts.get("checkpoint_sha256"), before.facts.get("precision")
        asked = choose_compute(config.device, config.precision).precision
        if known == (sha256(run.folder / "checkpoints" / "best.pt"), asked):
            return before
    evaluation = evaluate_checkpoint(run.folder, config, BEST)
    write_evaluation(run.folder, evaluation)
    return evaluation


def pictures_of(data: SegmentationDataset, name: str, predictions: Sequence[np.ndarray]) -> list[str]:
    """Image, truth and predictions of a frame; void, which counts nowhere, is void in all of these."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(data.classes)] = [label.color for label in data.classes]
    palette[VOID_ID] = VOID
    image, truth = data[data.names.index(name)]
    is_void = truth == data.ignore_index
    masks = [np.where(is_void, np.uint8(VOID_ID), mask) for mask in (truth, *predictions)]
    return [as_jpeg(image), *(as_png(mask, palette) for mask in masks)]


def as_jpeg(image: np.ndarray) -> str:
    """Base64 of a small copy of uint8 [height, width, 3]."""
    picture, content = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    picture.save(content, "JPEG", quality=QUALITY)
    return base64.b64encode(content.getvalue()).decode()


def as_png(mask: np.ndarray, palette: np.ndarray) -> str:
    """Base64 of a small copy of uint8 [height, width] in colours, uint8 [256, 3], none of which is mixed."""
    picture, content = Image.fromarray(mask), io.BytesIO()
    picture.putpalette(palette.tobytes())
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
    picture.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()
