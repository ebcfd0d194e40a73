"""One training process that can be killed at a chosen point of a save, and that says where it stood when it was killed.

    python -m benchmarks.killed_run TRACE POINT NUMBER SLOW WORDS...

trains as `python -m src.train WORDS...` and kills itself the NUMBER-th time that POINT comes, of a save of last.pt or of
validation. On SIGQUIT and before it dies it writes all threads' stacks to the file TRACE. With POINT `never` it waits to be
killed from outside. Each file of a checkpoint takes SLOW seconds longer than it would. Under torchrun it is the first rank
that dies.
"""

import faulthandler
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

# What Python reports (an audit event, a pattern of its first argument, the opening mode) at each point, in the order of a save.
POINTS = {
    "temporary file opened": ("open", r"/\.last\.pt\.\d+\.tmp$", "w"),
    "temporary file written": ("open", r"/\.last\.pt\.\d+\.tmp$", "r"),
    "old file about to get its second name": ("os.rename", r"/\.last_previous\.pt\.\d+\.tmp$", None),
    "before the rename": ("os.rename", r"/\.last\.pt\.\d+\.tmp$", None),
    "between file and manifest": ("open", r"/\.manifest\.json\.\d+\.tmp$", "w"),
    "manifest written": ("os.rename", r"/\.manifest\.json\.\d+\.tmp$", None),
    "between manifest and its copy": ("open", r"/\.manifest_copy\.json\.\d+\.tmp$", "w"),
    "copy written": ("os.rename", r"/\.manifest_copy\.json\.\d+\.tmp$", None),
    "after a rename": ("open", r"/checkpoints$", None),  # the folder, to flush its names
}
VALIDATION = "validation"  # a batch of it is done


def kill_at(point: str, number: int, trace: Any) -> None:
    """Ends this process by SIGKILL at that point."""
    trainer, left = os.getpid(), number

    def count_down() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            faulthandler.dump_traceback(trace)
            os.kill(trainer, signal.SIGKILL)

    if point == VALIDATION:
        import src.loop

        src.loop.count_confusion = calling_first(count_down, src.loop.count_confusion)
        return
    event, pattern, mode = POINTS[point]

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name != event or os.getpid() != trainer or not re.search(pattern, str(arguments[0])):
            return
        if event != "open" or arguments[1] == mode:
            count_down()

    sys.addaudithook(hook)


def calling_first(before: Callable[[], object], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with something done before each call."""

    def both(*arguments: Any) -> Any:
        before()
        return function(*arguments)

    return both


def main() -> None:
    """The command line."""
    _, file, point, number, slow, *words = sys.argv
    import src.checkpoint
    from src.train import main as train_main

    sys.argv = ["src.train", *words]
    src.checkpoint.write_durably = calling_first(lambda: time.sleep(float(slow)), src.checkpoint.write_durably)
    if os.environ.get("RANK", "0") != "0":
        return train_main()
    with open(file, "w") as trace:  # noqa: PTH123  the process dies with it open
        faulthandler.register(signal.SIGQUIT, trace)
        if point != "never":
            kill_at(point, int(number), trace)
        return train_main()


if __name__ == "__main__":
    main()
