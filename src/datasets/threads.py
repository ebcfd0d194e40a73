"""Work on many files at once, with a bar on a terminal."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """`work` of each item, in their order; an exception of one ends the others. Decoding lets other threads run."""
    console = Console(file=getattr(sys.stderr, "rich_proxied_file", sys.stderr))
    number = min(8, (os.cpu_count() or 1) + 1)
    with ThreadPoolExecutor(number) as threads:
        done = _in_order(threads, work, items, ahead=4 * number)
        try:
            yield from track(done, title, len(items), console=console, transient=True, disable=not console.is_terminal)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _in_order(threads: ThreadPoolExecutor, work: Callable[[Item], Result], items: Sequence[Item], ahead: int) -> Iterator[Result]:
    """Results as they are asked for, at most `ahead` of them waiting: who asks may be slower, and memory is finite."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(threads.submit(work, item))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
