"""Where randomness starts."""

import os
import random

import numpy as np
import torch

from src.datasets.randomness import Purpose, make_generator


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices). Sampling, augmentation and training steps have seeds of their own."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_step(*key: int) -> None:
    """Makes what the network itself draws (dropout) depend on these numbers alone, so that no generator must be carried."""
    torch.manual_seed(int(make_generator(Purpose.STEP, *key).integers(2**63)))


def use_determinism(deterministic: bool) -> None:
    """Makes torch refuse operations that give different results from run to run, or lets cuDNN pick the fastest."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
