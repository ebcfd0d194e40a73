"""One training process that can be killed at a chosen point of a save, and that says where it stood when it was killed.

    python -m benchmarks.killed_run TRACE POINT NUMBER WORDS...

trains as `python -m src.train WORDS...` and kills itself the NUMBER-th time that POINT of a save of last.pt comes. On SIGQUIT and
before it dies it writes all threads' stacks to the file TRACE. With POINT `never` it waits to be killed from outside.
"""

import faulthandler
import os
import re
import signal
import sys
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


def kill_at(point: str, number: int, trace: Any) -> None:
    """Ends this process by SIGKILL at that point."""
    event, pattern, mode = POINTS[point]
    trainer, left = os.getpid(), number

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if name != event or os.getpid() != trainer or not re.search(pattern, str(arguments[0])):
            return
        if event == "open" and arguments[1] != mode:
            return
        left -= 1
        if left == 0:
            faulthandler.dump_traceback(trace)
            os.kill(trainer, signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    """The command line."""
    _, file, point, number, *words = sys.argv
    from src.train import main as train_main

    with open(file, "w") as trace:  # noqa: PTH123  the process dies with it open
        faulthandler.register(signal.SIGQUIT, trace)
        if point != "never":
            kill_at(point, int(number), trace)
        sys.argv = ["src.train", *words]
        train_main()


if __name__ == "__main__":
    main()
