"""Independent random streams, one for each purpose."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are drawn for.

    NumPy pads the entropy of a generator with zeros, so that (seed, epoch) and (seed, epoch, 0) would give one stream. The
    purpose comes first and is a number that no seed, epoch or index is likely to be.
    """

    SHUFFLE = 0x53485546
    AUGMENTATION = 0x4155474D
    STEP = 0x53544550


def make_generator(purpose: Purpose, *key: int) -> np.random.Generator:
    """A generator whose numbers depend on the purpose and the key alone; each number of the key is 0 or more."""
    return np.random.default_rng([int(purpose), *key])
