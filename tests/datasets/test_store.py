"""Decoded samples: the same from wherever they are kept, and never wrong ones."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, write_split
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from src.datasets import reader
from src.datasets.augmentation import Augmentation
from src.datasets.batches import Batches
from src.datasets.camvid import CamVid
from src.datasets.reader import Cache
from src.datasets.sampler import EpochSampler
from src.datasets.samples import Samples
from src.datasets.store import store_key
from src.datasets.threads import in_threads
from src.errors import ConfigError, DataError

CACHES: list[Cache] = ["disk", "memory", "device", "none", "auto"]
MOVES = [A.RandomCrop(16, 20), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
NUM_IMAGES = 9
BUILDER = """
import sys
from pathlib import Path
from src.datasets.camvid import CamVid
print("ready", flush=True)
sys.stdin.readline()
data = CamVid(sys.argv[1], "train", cache="disk")
print(data.samples.file, sum(int(array.astype("int64").sum()) for sample in data.samples for array in sample), flush=True)
"""
SMALL_DISK = """
import resource, sys
from src.datasets.camvid import CamVid
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
data = CamVid(sys.argv[1], "train", cache="disk")
print(data.samples.file, sum(int(array.astype("int64").sum()) for index in range(len(data)) for array in data[index]))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_split(tmp_path / "data", "train", NUM_IMAGES, (24, 32))
    return tmp_path / "data"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for what is cached."""
    monkeypatch.setattr(reader, "CACHE_HOME", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(reader, "read_pair", fail)


def batches(data: CamVid, num_workers: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    sampler = EpochSampler(len(data), 3, shuffle=True)
    loader = DataLoader(
        Batches(data),
        batch_size=None,
        sampler=BatchSampler(sampler, 4, drop_last=False),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    for epoch in range(3):
        sampler.begin(epoch)
        yield from loader


def same(left: Iterator[tuple[Tensor, Tensor]], right: Iterator[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(left, right, strict=True))
    assert len(pairs) == 9
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def read(root: Path, cache: Cache, size: list[int] | None = None, transforms: list = MOVES, from_native: bool = True) -> CamVid:
    data = CamVid(str(root), "train", image_size=size, cache=cache, augmentation=Augmentation(transforms, from_native), seed=7)
    if cache == "device":
        data.place_on(torch.device("cpu"))
    return data


def pixels_of(samples: Samples) -> np.ndarray:
    return np.concatenate([array.ravel() for sample in samples for array in sample])


@pytest.mark.parametrize("cache", CACHES)
def test_masks_of_one_resize_are_not_taken_for_those_of_the_other(root: Path, home: Path, cache: Cache) -> None:
    found = {}
    for mask_resize in ("center", "floor", "center"):
        data = CamVid(str(root), "train", image_size=[7, 9], mask_resize=mask_resize, cache=cache)
        if cache == "device":
            data.place_on(torch.device("cpu"))
        masks = data.batch(range(NUM_IMAGES))[1]
        assert torch.equal(masks, found.setdefault(mask_resize, masks))
    files = [pair.mask for pair in CamVid(str(root), "train", cache="none").pairs]
    for mask_resize, interpolation in (("center", cv2.INTER_NEAREST_EXACT), ("floor", cv2.INTER_NEAREST)):
        expected = np.stack([cv2.resize(np.array(Image.open(file)), (9, 7), interpolation=interpolation) for file in files])
        np.testing.assert_array_equal(found[mask_resize].numpy(), expected)
    assert not torch.equal(found["center"], found["floor"])


def test_what_was_cached_before_there_was_a_choice_is_still_found(root: Path, home: Path) -> None:
    data = CamVid(str(root), "train", image_size=[7, 9], cache="disk")
    key = store_key(data.pairs, (7, 9), sorted(data.labels.index_ids.items()), sorted(data.labels.color_ids.items()))
    assert [folder.name for folder in home.iterdir()] == [f"train_7x9_{key}"]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(
    ("size", "transforms", "from_native"),
    [([16, 20], MOVES, True), ([16, 20], MOVES[1:], False), (None, [], False)],
    ids=["crop and flips", "flips", "nothing"],
)
def test_batches_do_not_depend_on_where_samples_are_kept(
    root: Path, home: Path, cache: Cache, size: list[int] | None, transforms: list, from_native: bool
) -> None:
    plain = read(root, "none", size, transforms, from_native)
    assert same(batches(read(root, cache, size, transforms, from_native)), batches(plain))
    assert home.exists() == (cache in ("disk", "device", "auto"))


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
@pytest.mark.parametrize("num_workers", [1, 4])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
def test_batches_do_not_depend_on_the_number_of_workers(root: Path, home: Path, cache: Cache, num_workers: int) -> None:
    data = read(root, cache, [16, 20])
    assert same(batches(data, num_workers), batches(data))


def test_the_second_reader_decodes_nothing(root: Path, home: Path, request: pytest.FixtureRequest) -> None:
    first = CamVid(str(root), "train", cache="disk")
    request.getfixturevalue("no_decoding")
    second = CamVid(str(root), "train", cache="disk")
    np.testing.assert_array_equal(pixels_of(second.samples), pixels_of(first.samples))
    assert second.samples.facts == first.samples.facts
    assert (second.fingerprint, second.notes) == (first.fingerprint, first.notes)
    np.testing.assert_array_equal(second.class_pixels, first.class_pixels)


def test_another_size_another_file(root: Path, home: Path) -> None:
    for size in (None, [12, 12], [12, 13]):
        CamVid(str(root), "train", image_size=size, cache="disk")
    assert len(list(home.iterdir())) == 3


def test_a_changed_file_is_read_again(root: Path, home: Path) -> None:
    before = CamVid(str(root), "train", cache="disk")[0][0].copy()
    write_split(root, "train", NUM_IMAGES, (24, 32), seed=1)
    after = CamVid(str(root), "train", cache="disk")
    assert not np.array_equal(after[0][0], before)
    np.testing.assert_array_equal(after[0][0], CamVid(str(root), "train", cache="none")[0][0])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "pixels.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "pixels.bin").write_bytes(content)


def cut_off(folder: Path) -> None:
    (folder / "pixels.bin").write_bytes((folder / "pixels.bin").read_bytes()[:-1])


def empty(folder: Path) -> None:
    (folder / "pixels.bin").write_bytes(b"")


def lose_header(folder: Path) -> None:
    (folder / "header.json").unlink()


def break_header(folder: Path) -> None:
    (folder / "header.json").write_text('{"crc32": 1')


def other_facts(folder: Path) -> None:
    text = (folder / "header.json").read_text()
    assert "[24,32]" in text
    (folder / "header.json").write_text(text.replace("[24,32]", "[32,24]"))


def strange_header(folder: Path) -> None:
    (folder / "header.json").write_text("[]")


def nested_header(folder: Path) -> None:
    (folder / "header.json").write_text("[" * 100_000)


def strange_facts(folder: Path) -> None:
    """Whose checksum is right."""
    header = json.loads((folder / "header.json").read_text())
    facts = json.dumps(json.loads(header["facts"]) | {"shapes": [["24", [32]]] * NUM_IMAGES})
    crc32 = zlib.crc32(facts.encode(), zlib.crc32((folder / "pixels.bin").read_bytes()))
    (folder / "header.json").write_text(json.dumps(header | {"facts": facts, "crc32": crc32}))


DAMAGES = [
    *(flip_a_bit, cut_off, empty, lose_header, break_header, other_facts, strange_header, nested_header, strange_facts),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(
    root: Path, home: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    whole = pixels_of(CamVid(str(root), "train", cache="disk").samples)
    (folder,) = home.iterdir()
    damage(folder)
    with caplog.at_level(logging.WARNING):
        again = CamVid(str(root), "train", cache="disk")
    np.testing.assert_array_equal(pixels_of(again.samples), whole)
    assert [str(folder) in record.getMessage() and "damaged" in record.getMessage() for record in caplog.records] == [True]
    assert list(home.iterdir()) == [folder]


@pytest.mark.parametrize("other", ["scenes", "size"])
def test_an_entry_in_the_place_of_another_is_made_again(root: Path, home: Path, tmp_path: Path, other: str) -> None:
    """Other scenes of the same number and size, or the same ones at another size: whole, with a checksum that is right."""
    wanted = CamVid(str(root), "train", image_size=[8, 8], cache="none")
    expected = np.concatenate([array.ravel() for index in range(NUM_IMAGES) for array in wanted[index]])
    CamVid(str(root), "train", image_size=[8, 8], cache="disk")
    (place,) = home.iterdir()
    shutil.rmtree(place)
    if other == "scenes":
        write_split(tmp_path / "others", "train", NUM_IMAGES, (24, 32), seed=5)
        CamVid(str(tmp_path / "others"), "train", image_size=[8, 8], cache="disk")
    else:
        CamVid(str(root), "train", image_size=[4, 4], cache="disk")
    (stranger,) = home.iterdir()
    stranger.rename(place)
    data = CamVid(str(root), "train", image_size=[8, 8], cache="disk")
    np.testing.assert_array_equal(pixels_of(data.samples), expected)
    assert data.fingerprint == wanted.fingerprint


def test_a_file_cut_short_while_in_use_is_one_line(root: Path, home: Path) -> None:
    data = CamVid(str(root), "train", cache="disk")
    first = data[0][0].copy()
    (file,) = home.glob("*/pixels.bin")
    with file.open("r+b") as opened:
        opened.truncate(data.samples.num_bytes // 2)
    np.testing.assert_array_equal(data[0][0], first)
    for use in (lambda: data[NUM_IMAGES - 1], lambda: data.place_on(torch.device("cpu"))):
        with pytest.raises(DataError, match=r"pixels\.bin: cannot be read \(it was cut short\); start again") as caught:
            use()
        assert "\n" not in str(caught.value)
    again = CamVid(str(root), "train", cache="disk")
    np.testing.assert_array_equal(again[0][0], first)


@pytest.mark.slow
def test_a_full_disk_is_no_reason_not_to_train(root: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    done = run(SMALL_DISK, work, root)
    file, total = done.stdout.split()
    assert done.returncode == 0, done.stderr
    assert file == "None"
    assert "cannot be made" in done.stderr
    assert "decoded each time" in done.stderr
    assert int(total) == int(pixels_of(CamVid(str(root), "train", cache="memory").samples).astype(np.int64).sum())
    assert not list((work / "data" / "cache").iterdir())


def run(program: str, work: Path, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(root)]
    return subprocess.run(command, cwd=work, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_two_that_build_it_at_once(root: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", BUILDER, str(root)]
    builders = [subprocess.Popen(command, cwd=work, env=environment(), stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for builder in builders:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write("\n")
        builder.stdin.flush()
    answers = {builder.communicate(timeout=120)[0] for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0, 0]
    assert len(answers) == 1
    (folder,) = (work / "data" / "cache").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["header.json", "pixels.bin"]


def test_other_processes_get_the_file_not_its_bytes(root: Path, home: Path) -> None:
    data = CamVid(str(root), "train", cache="disk")
    sent = pickle.dumps(data.samples)
    assert len(sent) < data.samples.num_bytes
    np.testing.assert_array_equal(pixels_of(pickle.loads(sent)), pixels_of(data.samples))


def test_what_is_kept_cannot_be_written_to(root: Path, home: Path) -> None:
    image, _ = CamVid(str(root), "train", cache="disk")[0]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_images_of_their_own_size_lie_side_by_side(root: Path, home: Path) -> None:
    write_split(root / "larger", "train", 1, (30, 40))
    for folder in ("train", "trainannot"):
        (root / "larger" / folder / "frame_000.png").rename(root / folder / "larger.png")
    crop = Augmentation([A.RandomCrop(16, 20)], from_native=True)
    arguments = {"image_size": [16, 20], "augmentation": crop}
    data = CamVid(str(root), "train", cache="disk", **arguments)
    assert sorted({mask.shape for _, mask in data.samples}) == [(24, 32), (30, 40)]
    np.testing.assert_array_equal(data[(2, 9)][0], CamVid(str(root), "train", cache="none", **arguments)[(2, 9)][0])


@pytest.mark.parametrize(
    ("transforms", "size", "message"),
    [
        ([A.HorizontalFlip(), A.ColorJitter()], None, r"ColorJitter runs on the CPU alone; use dataset\.cache=disk"),
        ([A.RandomCrop(40, 40, pad_if_needed=True)], None, r"RandomCrop runs on the CPU alone"),
        ([A.OneOf([A.HorizontalFlip(), A.VerticalFlip()])], None, r"OneOf runs on the CPU alone"),
    ],
)
def test_the_device_moves_pixels_only(root: Path, home: Path, transforms: list, size: list[int] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(root, "device", size, transforms, from_native=False)


def test_the_device_needs_one_size(root: Path, home: Path) -> None:
    write_split(root / "larger", "train", 1, (30, 40))
    for folder in ("train", "trainannot"):
        (root / "larger" / folder / "frame_000.png").rename(root / folder / "larger.png")
    with pytest.raises(ConfigError, match="different sizes"):
        read(root, "device", [16, 20])


@pytest.mark.parametrize("cache", ["device", "none"])
def test_a_crop_of_another_size_than_asked_for(root: Path, home: Path, cache: Cache) -> None:
    with pytest.raises(ConfigError, match=r"augmentation gave 16x20 where dataset\.image_size is 16x21: RandomCrop changes"):
        read(root, cache, [16, 21])


def test_samples_that_are_not_kept_are_not_in_memory(root: Path, home: Path) -> None:
    samples = CamVid(str(root), "train", cache="none").samples
    assert (samples.are_kept, samples.pixels, samples.file) == (False, None, None)


def test_decoding_does_not_run_ahead_of_who_keeps_it() -> None:
    begun = []
    results = in_threads(lambda item: begun.append(item) or item, range(500), "")
    assert next(results) == 0
    time.sleep(0.3)
    assert len(begun) <= 4 * 8 + 1
    assert list(results) == list(range(1, 500))
