"""Whether `dataset.cache=device` feeds the training step: images a second of both, on one GPU. Needs CUDA and CAMVID_ROOT.

`python -m benchmarks.device_cache [model.channels=... loader.batch_size=... precision=...]`
"""

import json
import sys
import time
from collections.abc import Callable

import torch

from src.build import build
from src.cli import prepare
from src.step import train_step

WORDS = ["device=cuda", "dataset.cache=device", "augmentation=original", "loader.batch_size=32"]
WARM_UP, STEPS = 20, 100


def main() -> None:
    """The command line; exit code 1 if the step is faster than its data."""
    _, config = prepare("config", [*WORDS, *sys.argv[1:]])
    experiment = build(config)
    state, setup = experiment.state, experiment.setup
    keys = [(0, index) for index in range(config.loader.batch_size)]
    images, masks = experiment.train_data.batch(keys)
    normalized = setup.normalize(images)
    state.model.train()

    def seconds(work: Callable[[], None], number: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(number):
            work()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def step() -> None:
        train_step(state, setup, normalized, masks)

    def load() -> None:
        batch, _ = experiment.train_data.batch(keys)
        setup.normalize(batch)

    speeds = {}
    for name, work in (("training_step", step), ("device_cache", load)):
        seconds(work, WARM_UP)
        speeds[name] = STEPS * len(keys) / seconds(work, STEPS)
    names = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "precision": setup.compute.precision}
    print(json.dumps(names | {name: round(speed, 1) for name, speed in speeds.items()} | {"batch": len(keys)}))
    sys.exit(speeds["device_cache"] < speeds["training_step"])


if __name__ == "__main__":
    main()
