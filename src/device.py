"""What to compute on, in which number format, and how batches get there."""

import contextlib
import re
import resource
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from src.errors import ConfigError

CPU_IS_FULL = ("DefaultCPUAllocator", "could not create a primitive")  # torch's words, and those of oneDNN under it
HALF_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device and the number format of its convolutions.

    Attributes:
        device: Where weights and batches live.
        half: Type that autocast computes in; None computes in fp32.
    """

    device: torch.device
    half: torch.dtype | None

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the network runs."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)

    @property
    def name(self) -> str:
        """The hardware's own name, or that of the device type."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def precision(self) -> str:
        """`fp32`, `bf16` or `fp16`."""
        return next((name for name, half in HALF_TYPES.items() if half is self.half), "fp32")


def choose_compute(device: str, precision: str, local_rank: int | None = None) -> Compute:
    """Resolves `auto`: CUDA where there is one; bf16 where the hardware multiplies it natively, else fp32.

    Of several processes on one machine each gets the GPU of its `local_rank`, unless `device` names one.

    Raises:
        ConfigError: If the device is not there, or fp16 is asked for elsewhere than on CUDA.
    """
    chosen = torch.device(_choose_device(device))
    if chosen.type == "cuda" and chosen.index is None and local_rank is not None:
        chosen = torch.device(_choose_device(f"cuda:{local_rank}"))
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    if precision == "fp16" and chosen.type != "cuda":
        raise ConfigError(f"precision=fp16 needs CUDA, the device is {chosen}; use precision=bf16 or fp32")
    if precision == "fp32":  # whole fp32: no TF32
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    return Compute(chosen, HALF_TYPES.get(precision))


def _choose_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or int((re.findall(r"\d+", device) or ["0"])[0]) >= count:
            raise ConfigError(f"device={device}: this machine has {count} CUDA devices; use device=auto or device=cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: this machine has no Metal device; use device=auto or device=cpu")
    return device


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":  # without these instructions torch emulates bf16, which is slower than fp32
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def sum_type(device: torch.device) -> torch.dtype:
    """What to sum many numbers in: fp64, or fp32 on MPS, which has no fp64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Normalize:
    """Moves uint8 images to the device and normalises them there, so that workers ship one byte a value.

    Args:
        device: Where images go.
        mean: Of each channel, of images in [0, 1].
        std: Likewise.
    """

    def __init__(self, device: torch.device, mean: Sequence[float], std: Sequence[float]) -> None:
        self.device = device
        deviation = torch.tensor(std, device=device)
        self.scale = 1 / (255 * deviation)
        self.shift = torch.tensor(mean, device=device) / deviation

    def __call__(self, images: UInt8[Tensor, "batch h w 3"]) -> Float[Tensor, "batch 3 h w"]:
        """The images as (x / 255 - mean) / std, in channels-last memory."""
        images = images.to(self.device, non_blocking=True)
        batch, height, width, _ = images.shape
        rows = images.reshape(batch, height, 3 * width).float()  # long rows: on the CPU six times as fast as threes
        rows = rows.mul_(self.scale.repeat(width)).sub_(self.shift.repeat(width))
        return rows.view(batch, height, width, 3).permute(0, 3, 1, 2)  # a view: channels stay last


def peak_memory_mib(device: torch.device) -> float:
    """The most memory in MiB: allocated on CUDA since the last reset, else resident in this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left to give."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in CPU_IS_FULL)
