"""Work on many files at once, with a bar on a terminal."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """`work` of each item, in their order; an exception of one ends the others. Decoding lets other threads run."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as threads:
        done = threads.map(work, items)
        try:
            yield from track(done, title, len(items), console=console, transient=True, disable=not console.is_terminal)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
