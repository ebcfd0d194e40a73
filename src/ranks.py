"""The processes that train one network together, as torchrun starts them; the first of them alone writes."""

import os
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.errors import RankError
from src.signals import Interrupted

TIMEOUT = timedelta(minutes=10)  # for the slowest thing that one of them does alone


class Ranks:
    """This process among them; alone, and every method without effect, unless torchrun has started several.

    While it is entered they can speak with each other; it is left together.

    Attributes:
        rank: Its number; 0 is the first.
        local: Its number on this machine, and that of its GPU.
        size: How many there are.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.local = int(os.environ.get("LOCAL_RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def __enter__(self) -> "Ranks":
        if self.several:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.several:
            if kind is None or issubclass(kind, Interrupted):  # else torchrun would end the first one while it writes
                try:
                    dist.barrier()
                except RuntimeError as problem:
                    raise RankError("another rank of this run ended; see what it said. What was saved is whole") from problem
            dist.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if self.several:
            dist.all_reduce(tensor)
        return tensor

    def most(self, number: int) -> int:
        """The largest of the numbers that the ranks have."""
        if not self.several:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def tell(self, value: Any = None) -> Any:
        """What the first rank gives, on all of them."""
        values = [value]
        if self.several:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Gives all ranks the first one's BatchNorm statistics, as each training step begins with."""
        if self.several:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def connect(self, model: nn.Module, device: torch.device) -> nn.Module | None:
        """What training calls, so that gradients are averaged over the ranks; None for the network itself."""
        if not self.several:
            return None
        return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
