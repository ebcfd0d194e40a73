"""Devices, number formats and normalisation."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from src.device import Normalize, choose_compute, peak_memory_mib
from src.errors import ConfigError

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


@pytest.fixture(autouse=True)
def _keep_torchs_settings() -> Iterator[None]:
    matmul, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = tf32


def test_normalize_equals_the_formula() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    expected = ((images / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    result = Normalize(CPU, MEAN, STD)(torch.from_numpy(images.copy()))
    assert result.dtype == torch.float32
    assert result.shape == (2, 3, 5, 7)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_normalize_gives_channels_last_memory_and_leaves_the_images() -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    before = images.clone()
    assert Normalize(CPU, MEAN, STD)(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_auto_is_the_best_device_there_is() -> None:
    compute = choose_compute("auto", "fp32")
    assert compute.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_cuda_says_what_to_do(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"device={device}: this machine has 0 CUDA devices; use device=auto or device=cpu"):
        choose_compute(device, "auto")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_cuda_device_beyond_the_last_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="device=cuda:99: this machine has"):
        choose_compute("cuda:99", "auto")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has Metal")
def test_mps_without_metal_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"device=mps: .*use device=auto or device=cpu"):
        choose_compute("mps", "fp32")


def test_fp16_on_the_cpu_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"precision=fp16 needs CUDA, the device is cpu; use precision=bf16 or fp32"):
        choose_compute("cpu", "fp16")


def test_fp32_computes_in_fp32() -> None:
    torch.set_float32_matmul_precision("medium")
    compute = choose_compute("cpu", "fp32")
    assert (compute.device, compute.half, compute.precision, compute.name) == (CPU, None, "fp32", "cpu")
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 is False
    with compute.autocast():
        assert not torch.is_autocast_enabled("cpu")
        assert nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2)).dtype == torch.float32


def test_bf16_asked_for_computes_in_bf16() -> None:
    compute = choose_compute("cpu", "bf16")
    assert (compute.half, compute.precision) == (torch.bfloat16, "bf16")
    convolution = nn.Conv2d(1, 1, 1)
    with compute.autocast():
        assert torch.is_autocast_enabled("cpu")
        assert convolution(torch.zeros(1, 1, 2, 2)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    assert convolution.weight.dtype == torch.float32


def test_auto_on_the_cpu_takes_bf16_where_the_processor_multiplies_it() -> None:
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert choose_compute("cpu", "auto").precision == ("bf16" if native else "fp32")


def test_peak_memory_is_at_least_what_was_just_filled() -> None:
    before = peak_memory_mib(CPU)
    filled = torch.ones(2**20 * 48)  # 192 MiB
    assert 20 < before < 2**20  # in MiB, neither KiB nor bytes
    assert peak_memory_mib(CPU) >= filled.numel() * 4 / 2**20
