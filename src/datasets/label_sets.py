"""The label sets that a configuration can ask for: CamVid's, ids as stored, or classes written down."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.datasets.label_tables import CAMVID11, CAMVID32, MERGED_COLORS, UNUSED, Color, LabelClass, distinct_color
from src.datasets.labels import LabelSet
from src.errors import ConfigError, DataError

LABELS = ("camvid11", "camvid32", "index")
UNMERGED = (
    "11 of the 32 classes unmerged, the others void: lane marks, walls, trucks and more then count nowhere, and its scores"
    " cannot be compared with those of the usual merge of all 32"
)


def camvid_labels(
    labels: str,
    codes: Sequence[str] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
) -> LabelSet:
    """The label set that `dataset.labels` names.

    Args:
        labels: `camvid11`, the merge of the 32 classes, void 11; `camvid32`, the 31 classes and void 31; `index`, as stored.
        codes: Names of the values in index masks; empty: masks show colours alone; None: SegNet's ids.
        num_classes: Channels of the logits; None: as many as classes.
        class_names: Names of ids 0, 1, ..., for `index` alone; None: those of `codes`, or CamVid's.
        ignore_index: Id of void; None: 11 or 31, and 255 for `index`.

    Raises:
        ConfigError: If these do not fit each other.
    """
    if labels == "class_11":
        raise ConfigError(f"dataset.labels=class_11: {UNMERGED}; use dataset.labels=camvid11")
    if labels not in LABELS:
        raise ConfigError(f"dataset.labels={labels}; allowed are {', '.join(LABELS)}")
    if labels == "index":
        return _stored_ids(num_classes, class_names or (codes or ())[:num_classes] or None, ignore_index)
    if class_names is not None:
        raise ConfigError(f"dataset.class_names={list(class_names)}: allowed with dataset.labels=index alone")
    classes = CAMVID11 if labels == "camvid11" else tuple(LabelClass(c.name, c.color) for c in CAMVID32 if c.name != "Void")
    ignore_index = len(classes) if ignore_index is None else ignore_index
    num_classes = len(classes) if num_classes is None else num_classes
    if num_classes < len(classes):
        raise ConfigError(f"dataset.num_classes={num_classes}; labels={labels} need at least {len(classes)}")
    _check_ignored(ignore_index, range(len(classes)))
    ids = {c.name: number for number, c in enumerate(classes)} | {"Void": ignore_index}
    raw_ids = {c.name: ids[c.group if labels == "camvid11" else c.name] for c in CAMVID32}
    colors = {c.color: raw_ids[c.name] for c in CAMVID32}
    if labels == "camvid11":
        colors |= {color: ids[name] for color, name in MERGED_COLORS.items()}
    index_ids = _index_ids(labels, codes, raw_ids, ignore_index)
    return LabelSet(classes, num_classes, ignore_index, index_ids, colors, hint="see dataset.labels")


def _index_ids(labels: str, codes: Sequence[str] | None, raw_ids: dict[str, int], ignore_index: int) -> dict[int, int]:
    if codes is not None:
        if unknown := [name for name in codes if name not in raw_ids]:
            raise DataError(f"codes.txt names {unknown[0]}, which is no class of CamVid; use dataset.labels=index")
        return {value: raw_ids[name] for value, name in enumerate(codes)}
    if labels == "camvid11":  # SegNet's
        return {value: value for value in range(len(CAMVID11))} | {ignore_index: ignore_index}
    return {}


def _stored_ids(num_classes: int | None, names: Sequence[str] | None, ignore_index: int | None) -> LabelSet:
    if num_classes is None:
        raise ConfigError("dataset.labels=index needs dataset.num_classes=N (the stored ids are 0 to N-1)")
    if not 2 <= num_classes <= UNUSED:
        raise ConfigError(f"dataset.num_classes={num_classes}; allowed are 2 to {UNUSED}")
    ignore_index = UNUSED if ignore_index is None else ignore_index
    _check_ignored(ignore_index, range(num_classes))
    if names is None:
        classes = CAMVID11[:num_classes]
    elif not 1 <= len(names) <= num_classes or len(set(names)) < len(names):
        raise ConfigError(
            f"dataset.class_names={list(names)}; allowed are different names of the first ids, {num_classes} at most"
        )
    else:
        classes = tuple(LabelClass(name, distinct_color(number)) for number, name in enumerate(names))
    stored = {value: value for value in [*range(num_classes), ignore_index]}
    hint = "see dataset.labels, dataset.num_classes and dataset.ignore_index"
    return LabelSet(classes, num_classes, ignore_index, stored, hint=hint)


def _check_ignored(ignore_index: int, ids: range) -> None:
    if ignore_index in ids or not 0 <= ignore_index <= UNUSED:
        raise ConfigError(f"dataset.ignore_index={ignore_index}; allowed are ids that are no class, up to {UNUSED}")


def named_labels(classes: Mapping[str, Any], void: Any) -> LabelSet:
    """A label set written down: for each class the ids or colours by which masks show it.

    Args:
        classes: Name to an id, a colour [red, green, blue], or a list of either (three ids are written {ids: [7, 8, 9]});
            class i of the mapping gets id i.
        void: The same for pixels that never count; None: there are none. Their id is 255.

    Raises:
        ConfigError: If a value is neither, or stands for two classes.
    """
    index_ids: dict[int, int] = {}
    color_ids: dict[Color, int] = {}
    colors = []
    triples = [f"{name}: {written}" for name, written in classes.items() if _is_color(written)]
    if not 2 <= len(classes) <= UNUSED:
        raise ConfigError(f"dataset.classes: {len(classes)} classes; allowed are 2 to {UNUSED}")
    for number, (name, written) in enumerate([*classes.items(), ("void", void)]):
        class_id = number if number < len(classes) else UNUSED
        values = [] if written is None else _values(name, written)
        for value in values:
            table: dict[Any, int] = color_ids if isinstance(value, tuple) else index_ids
            if value in table:
                raise ConfigError(f"dataset.classes: {value} stands for two classes, {name} is one of them")
            table[value] = class_id
        colors.append(next((v for v in values if isinstance(v, tuple)), distinct_color(number)))
    if triples and index_ids:
        raise ConfigError(
            f"dataset.classes.{triples[0]}: a colour, or three ids? Others have ids. Write [[red,green,blue]] or {{ids: [7,8,9]}}"
        )
    named = tuple(LabelClass(name, color) for name, color in zip(classes, colors, strict=False))
    return LabelSet(named, len(classes), UNUSED, index_ids, color_ids, hint="see dataset.classes and dataset.void")


def _values(name: str, written: Any) -> list[int | Color]:
    """The ids and colours of one class; three numbers from 0 to 255 are a colour."""
    if isinstance(written, dict) and list(written) == ["ids"] and isinstance(written["ids"], list):
        items = written["ids"]
    else:
        items = written if isinstance(written, list) and not _is_color(written) else [written]
    if isinstance(written, list) and len(written) == 3 and written == items and all(type(item) is int for item in items):
        raise ConfigError(
            f"dataset.classes.{name}={written}: a colour has numbers from 0 to 255; three ids are written {{ids: {written}}}"
        )
    values: list[int | Color] = []
    for item in items:
        if _is_color(item):
            values.append((item[0], item[1], item[2]))
        elif type(item) is int and item >= 0:
            values.append(item)
        else:
            raise ConfigError(
                f"dataset.classes.{name}={item!r}; allowed are an id, a colour [red,green,blue], or a list of these"
            )
    return values


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
