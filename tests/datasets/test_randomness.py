"""Each purpose draws from a stream of its own."""

import itertools

import albumentations as A
import numpy as np
import torch

from src.datasets.augmentation import Augmentation
from src.datasets.randomness import Purpose, make_generator
from src.datasets.sampler import EpochSampler
from src.seeding import seed_step

KEYS = [(), (0,), (0, 0), (0, 0, 0), (1, 0), (0, 1), (1, 0, 0), (17, 3, 2)]


def first_numbers(purpose: Purpose, key: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(make_generator(purpose, *key).integers(2**63, size=4).tolist())


def test_numpy_pads_a_seed_sequence_with_zeros() -> None:
    """The trap that `make_generator` avoids; should NumPy close it, the purposes may go."""
    assert np.random.default_rng([5, 0]).random() == np.random.default_rng([5, 0, 0]).random()


def test_no_two_purposes_share_a_stream() -> None:
    for one, other in itertools.combinations(Purpose, 2):
        assert not {first_numbers(one, key) for key in KEYS} & {first_numbers(other, key) for key in KEYS}


def test_the_first_shuffle_the_first_augmentation_and_the_first_step_are_independent() -> None:
    seed = 0  # before, all three were numpy.random.default_rng([0])
    order = [index for _, index in EpochSampler(20, seed, shuffle=True)]
    assert order != np.random.default_rng([seed]).permutation(20).tolist()
    augmentation = Augmentation([A.HorizontalFlip()])
    augmentation._seed((seed, 0, 0))
    shuffle, augment = (make_generator(purpose, seed).bit_generator for purpose in (Purpose.SHUFFLE, Purpose.AUGMENTATION))
    assert order == np.random.Generator(shuffle).permutation(20).tolist()
    augment.random_raw()  # of which Python's own random numbers are seeded
    assert augmentation.compose.random_generator.bit_generator.state == augment.state
    seed_step(seed, 0, 0, 0)
    assert torch.initial_seed() == make_generator(Purpose.STEP, seed, 0, 0, 0).integers(2**63)


def test_a_stream_depends_on_its_key_alone() -> None:
    np.random.seed(3)
    assert first_numbers(Purpose.STEP, (1, 2, 3)) == first_numbers(Purpose.STEP, (1, 2, 3))
    assert len({first_numbers(Purpose.STEP, key) for key in itertools.product(range(3), repeat=3)}) == 27
