"""Which numbers a configuration may hold."""

from collections.abc import Iterator, Mapping
from typing import Any

from src.errors import ConfigError

Range = tuple[int, int] | tuple[float, float]  # the smallest and the largest allowed number; integers: whole numbers alone
ANY_NUMBER: Range = (-1e18, 1e18)  # of keys without a range: finite, and no integer that is too large for torch


def check_numbers(tree: dict[str, Any], ranges: Mapping[str, Range]) -> None:
    """Raises ConfigError at the first number in the tree that is outside the range of its key.

    The numbers of a list have the range of the list's key. A boolean is no number where the key itself has a range.
    """
    for key, value in _leaves(tree):
        low, high = bounds = range_of(key, ranges)
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int | float):
                continue
            wrong_type = isinstance(number, bool) or (isinstance(low, int) and isinstance(number, float))
            if not low <= number <= high or (wrong_type and key in ranges):
                raise ConfigError(f"{key}={value}; allowed are {range_in_words(bounds)}")


def range_of(key: str, ranges: Mapping[str, Range]) -> Range:
    """That of the key, or else of the nearest key above it."""
    while key not in ranges and "." in key:
        key = key.rpartition(".")[0]
    return ranges.get(key, ANY_NUMBER)


def range_in_words(bounds: Range) -> str:
    """`whole numbers from 1 to 65536`."""
    low, high = bounds
    return f"whole numbers from {low} to {high}" if isinstance(low, int) else f"numbers from {low:g} to {high:g}"


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a list is a value, and the lists and dictionaries in it come after it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
        return
    yield prefix, node
    if isinstance(node, list):
        for number, value in enumerate(node):
            if isinstance(value, dict | list):
                yield from _leaves(value, f"{prefix}[{number}]")
