"""What may be said about two checkpoints from the frames that both were scored on: frames of a video are not independent."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.errors import ConfigError
from src.stored_evaluations import Evaluation
from src.studies.statistics.claims import NO_SPREAD, Claim, t_interval

Counts = NDArray[np.float64]
REPLICATES = 1000
LEAST_FREEDOM = 3  # degrees of freedom from which an interval is given
MOST_MEMORY = 0.97  # correlation of neighbours that is reckoned with at most


def miou_of(counts: Counts) -> NDArray[np.float64]:
    """MIoU from [..., 3, classes]: true positives, pixels of the truth, pixels predicted.

    Classes without a pixel in the truth are in no mean.
    """
    hits, truth, predicted = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    there = truth > 0
    iou = np.divide(hits, truth + predicted - hits, out=np.zeros_like(hits), where=there)
    return np.asarray(iou.sum(-1) / np.maximum(there.sum(-1), 1))


def compare_checkpoints(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    sequences: Sequence[str],
    confidence: float = 0.95,
    seed: int = 0,
) -> Claim:
    """The difference in mIoU of two checkpoints, `a` less `b`, on the same frames.

    The paired bootstrap resamples circular blocks of consecutive frames within each sequence (Politis and Romano 1992); their
    length suits the correlation of neighbouring frames (Carlstein 1986, with the AR(1) rule). As a clip has few such blocks,
    the bootstrap's standard error is corrected for what blocks of that length miss of an AR(1) series, and the interval is
    one of Student's t with the blocks' degrees of freedom.

    Frames that are alone in their sequence count as independent of each other, in the order that they come in.

    Args:
        a: int64 [frames, classes, classes], truth by prediction, frames in the order of the video.
        b: Those of the other checkpoint.
        sequences: The video that each frame is from.
        confidence: Of the interval.
        seed: Of the resampling.

    Raises:
        ValueError: If frames differ in number.
    """
    if a.shape != b.shape or len(a) != len(sequences):
        raise ValueError(f"{len(a)}, {len(b)} frames and {len(sequences)} names of sequences; all must be of the same frames")
    counts = np.stack([_counts(a), _counts(b)], axis=1)
    total = counts.sum(0)
    difference = float(miou_of(total[0]) - miou_of(total[1]))
    videos = frames_of(sequences)
    influence = _influence(counts[:, 0], total[0]) - _influence(counts[:, 1], total[1])
    memory = correlation([influence[frames] for frames in videos])
    lengths = [block_length(len(frames), memory) for frames in videos]
    generator = np.random.default_rng(seed)
    resampled = sum(_resample(counts[f], n, generator) for f, n in zip(videos, lengths, strict=True))
    assert isinstance(resampled, np.ndarray)
    spread = float(np.std(miou_of(resampled[:, 0]) - miou_of(resampled[:, 1]), ddof=1))
    sizes = [len(frames) for frames in videos]
    doubt = 0.7 * math.sqrt((1 - memory**2) / len(a))  # of the standard error of a correlation, found by trying
    error = spread * correction(sizes, lengths, min(memory + doubt, MOST_MEMORY))
    freedom = degrees_of_freedom(sizes, lengths)
    if freedom < LEAST_FREEDOM or error < NO_SPREAD < abs(difference):
        return Claim("checkpoints", difference, None, None, None, len(a), len(b), "none: too few frames", confidence)
    low, high, p = t_interval(difference, error, freedom, confidence)
    method = f"paired bootstrap of blocks of {' and '.join(str(n) for n in sorted(set(lengths)))} consecutive frames"
    return Claim("checkpoints", difference, low, high, p, len(a), len(b), method, confidence)


def frames_of(sequences: Sequence[str]) -> list[NDArray[np.int64]]:
    """Places of the frames of each video, and of all that are alone in theirs as one."""
    found = [np.flatnonzero(np.asarray(sequences) == name) for name in dict.fromkeys(sequences)]
    alone = [frames for frames in found if len(frames) == 1]
    return [frames for frames in found if len(frames) > 1] + ([np.concatenate(alone)] if alone else [])


def compare_evaluations(a: Evaluation, b: Evaluation) -> Claim:
    """The difference of two evaluated checkpoints; raises ConfigError unless both were scored in one way, on the same frames."""
    if a.fingerprint != b.fingerprint:
        keys = [key for key in sorted(a.protocol | b.protocol) if a.protocol.get(key) != b.protocol.get(key)]
        raise ConfigError(f"the two evaluations differ in {', '.join(keys) or 'their protocol'}; nothing can be said of the two")
    if (a.names, a.sequences) != (b.names, b.sequences):
        raise ConfigError("the two evaluations are of other frames; nothing can be said of the two")
    return compare_checkpoints(scored_rows(a), scored_rows(b), a.sequences)


def scored_rows(evaluation: Evaluation) -> NDArray[np.int64]:
    """Confusion of each frame, where pixels whose truth is no scored class count nowhere."""
    confusion = evaluation.confusion.copy()
    confusion[:, len(evaluation.class_names) :] = 0
    return confusion


def frame_scores(evaluation: Evaluation) -> NDArray[np.float64]:
    """MIoU of each frame by itself, over the classes that its truth holds."""
    return miou_of(_counts(scored_rows(evaluation)))


def correlation(series: Sequence[NDArray[np.float64]]) -> float:
    """Of neighbouring frames over all sequences, each about the common mean; corrected for its bias in short series."""
    mean = np.concatenate(series).mean()
    centred = [values - mean for values in series]
    variance = sum(float((values**2).sum()) for values in centred)
    if variance == 0:
        return 0.0
    found = sum(float((values[1:] * values[:-1]).sum()) for values in centred) / variance
    frames = sum(len(values) for values in series)
    return float(np.clip(found + (1 + 4 * found) / frames, 0, MOST_MEMORY))


def block_length(frames: int, memory: float) -> int:
    """Consecutive frames that are drawn together."""
    wished = (math.sqrt(6) * memory / (1 - memory**2)) ** (2 / 3) * frames ** (1 / 3)
    return int(np.clip(math.ceil(wished), 1, max(frames // 4, 1)))


def correction(sizes: Sequence[int], lengths: Sequence[int], memory: float) -> float:
    """True standard error over what the block bootstrap is expected to give, for AR(1) series of this memory."""
    true = sum(n**2 * _variance_of_mean(n, memory) for n in sizes)
    seen = 0.0
    for n, length in zip(sizes, lengths, strict=True):
        seen += n * length * (_variance_of_mean(length, memory) - _variance_of_mean(n, memory))
    return math.sqrt(true / seen) if seen > 0 else 1.0


def degrees_of_freedom(sizes: Sequence[int], lengths: Sequence[int]) -> float:
    """Of the variance: as many as there are blocks side by side, less one a video."""
    return float(sum(n // length for n, length in zip(sizes, lengths, strict=True)) - len(sizes))


def _variance_of_mean(n: int, memory: float) -> float:
    lags = np.arange(1, n)
    return float((n + 2 * ((n - lags) * memory**lags).sum()) / n**2)


def _counts(confusion: NDArray[np.int64]) -> Counts:
    """[frames, 3, classes]: true positives, pixels of the truth, pixels predicted."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    return np.stack([hits, confusion.sum(2), confusion.sum(1)], axis=1).astype(float)


def _influence(counts: Counts, total: Counts) -> NDArray[np.float64]:
    """What each frame adds to the mIoU, to first order."""
    there = total[1] > 0
    union = (total[1] + total[2] - total[0])[there]
    unions = (counts[:, 1] + counts[:, 2] - counts[:, 0])[:, there]
    return ((counts[:, 0, there] - total[0][there] / union * unions) / union).mean(1)


def _resample(counts: Counts, length: int, generator: np.random.Generator) -> Counts:
    """REPLICATES sums of as many frames as there are, in circular blocks; the last block is cut where it must be."""
    frames = len(counts)
    flat = counts.reshape(frames, -1)
    sums = np.concatenate([np.zeros((1, flat.shape[1])), np.cumsum(np.concatenate([flat, flat]), axis=0)])
    whole, rest = divmod(frames, length)
    starts = generator.integers(0, frames, (REPLICATES, whole))
    drawn = (sums[starts + length] - sums[starts]).sum(1)
    if rest:
        last = generator.integers(0, frames, REPLICATES)
        drawn += sums[last + rest] - sums[last]
    return drawn.reshape(REPLICATES, *counts.shape[1:])
