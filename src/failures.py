"""What ends a run from outside its own code, told in one line: memory, loader workers and what they read, other ranks."""

import contextlib
import gc
import traceback
from collections.abc import Iterator

import torch

from src.build import Experiment
from src.config import Config
from src.device import is_out_of_memory
from src.errors import OutOfMemoryError, RankError, WorkerError
from src.loading import worker_errors
from src.step import train_step

RANK_DIED = ("closed by peer", "reset by peer", "Timed out waiting", "NCCL")


@contextlib.contextmanager
def told_in_one_line(config: Config, experiment: Experiment) -> Iterator[None]:
    """Turns such a failure into a UserError that says what to do; every other one passes."""
    try:
        with worker_errors(config.loader.num_workers):
            yield
        return
    except WorkerError as error:
        raise WorkerError(f"{error}. What was saved is whole: go on with training.resume=auto") from error
    except (RuntimeError, MemoryError) as error:
        if experiment.setup.ranks.several and any(words in str(error) for words in RANK_DIED):
            raise RankError("another rank of this run ended; see what it said. What was saved is whole") from error
        if not is_out_of_memory(error):
            raise
        calls = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step that failed
    raise OutOfMemoryError(f"{_explain_memory(config, experiment, calls)}. What was saved is whole")


def _explain_memory(config: Config, experiment: Experiment, calls: set[str]) -> str:
    compute, batch, pictures = experiment.setup.compute, config.loader.batch_size, config.training.panel_images
    if "write_pictures" in calls:
        return f"training.panel_images={pictures}: so many at once do not fit into the memory of {compute.name}; use fewer"
    if "evaluate" in calls:
        return (
            f"loader.batch_size={batch}: training steps do, but validation of so many images in {compute.precision} does not fit"
            f" into the memory of {compute.name}; use fewer, or a smaller dataset.image_size"
        )
    height, width = experiment.train_data[0][1].shape
    if experiment.setup.ranks.several:  # a step alone would wait for the others
        advice = f"try loader.batch_size={batch // 2}"
    elif fitting := find_batch_that_fits(experiment, batch // 2, (height, width)):
        advice = f"loader.batch_size={fitting} does (a step of it was tried)"
    else:
        advice = "not even one image does"
    return (
        f"loader.batch_size={batch}: a step of {batch} images of {height}x{width} in {compute.precision} does not fit into the"
        f" memory of {compute.name}; {advice}. Smaller are also dataset.image_size and model.channels"
    )


def find_batch_that_fits(experiment: Experiment, batch: int, size: tuple[int, int]) -> int | None:
    """The first of `batch`, its half, its quarter, ... that a training step has room for; None if there is none.

    The steps are real ones: the state is good for nothing afterwards.
    """
    state, setup = experiment.state, experiment.setup
    state.model.train()
    while batch:
        state.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if setup.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            images = setup.normalize(torch.zeros(batch, *size, 3, dtype=torch.uint8))
            masks = torch.zeros(batch, *size, dtype=torch.uint8, device=setup.compute.device)
            train_step(state, setup, images, masks)
            return batch
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        except ValueError:  # BatchNorm at the deepest level needs more than this
            return None
        batch //= 2
    return None
