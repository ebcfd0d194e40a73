import numpy as np
import pytest

from src.datasets.baselines import colour_and_row_miou, majority_map_miou

VOID = 9


def mask(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def flat_image(truth: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> np.ndarray:
    return np.array([[colours[int(label)] for label in row] for row in truth], dtype=np.uint8)


def test_majority_map_by_hand() -> None:
    train = [mask([0, 1], [1, 1]), mask([0, 0], [1, 1]), mask([0, 1], [0, 1])]  # majority: 0 1 / 1 1
    val = [mask([0, 0], [1, 1])]  # class 0: 1 hit of 2; class 1: 2 hits of 3
    assert majority_map_miou(train, val, 2, VOID) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_majority_map_is_perfect_where_val_repeats_train() -> None:
    scene = mask([0, 1], [2, 1])
    assert majority_map_miou([scene], [scene, scene], 3, VOID) == 1.0


def test_majority_map_leaves_out_void_and_foreign_values() -> None:
    train = [mask([VOID, 1], [200, 0]), mask([0, 1], [1, 0])]
    val = [mask([VOID, 1], [1, 200])]  # what is left is right, though the map answers something at the void too
    assert majority_map_miou(train, val, 2, VOID) == 1.0


def test_ignore_index_below_num_classes_is_neither_answered_nor_counted() -> None:
    train = [mask([0, 0], [0, 0]), mask([0, 0], [0, 0]), mask([1, 2], [2, 1])]
    val = [mask([1, 2], [0, 0])]
    assert majority_map_miou(train, val, 3, 0) == 1.0


def test_class_without_truth_is_not_counted() -> None:
    train = [mask([0, 1], [2, 2])]
    val = [mask([0, 1], [1, 1])]  # class 2 is answered twice and never true: it costs class 1, and is no class of its own
    assert majority_map_miou(train, val, 3, VOID) == pytest.approx((1 + 1 / 3) / 2)


def test_one_matrix_over_the_split_and_no_mean_of_images() -> None:
    train = [mask([0, 1])]
    val = [mask([0, 1]), mask([1, 1])]  # class 0: 1 of 2, class 1: 2 of 3; the mean of the images would differ
    assert majority_map_miou(train, val, 2, VOID) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_colour_that_names_the_class_is_learnt() -> None:
    colours = {0: (250, 10, 10), 1: (10, 250, 10), VOID: (0, 0, 0)}
    rng = np.random.default_rng(0)
    train_mask, val_mask = (rng.choice([0, 1, VOID], size=(64, 64)).astype(np.uint8) for _ in range(2))
    train = [(flat_image(train_mask, colours), train_mask)]
    val = [(flat_image(val_mask, colours), val_mask)]
    assert colour_and_row_miou(train, val, 2, VOID) == 1.0


def test_row_that_names_the_class_is_learnt_at_any_height() -> None:
    def scene(height: int) -> tuple[np.ndarray, np.ndarray]:
        truth = np.zeros((height, 16), dtype=np.uint8)
        truth[height // 2 :] = 1
        return np.full((height, 16, 3), 77, dtype=np.uint8), truth

    assert colour_and_row_miou([scene(32)], [scene(64)], 2, VOID) == 1.0


def test_unseen_colour_falls_back_to_its_row() -> None:
    truth = np.zeros((32, 16), dtype=np.uint8)
    truth[16:] = 1
    train = [(np.full((32, 16, 3), 40, dtype=np.uint8), truth)]
    val = [(np.full((32, 16, 3), 230, dtype=np.uint8), truth)]
    assert colour_and_row_miou(train, val, 2, VOID) == 1.0


def test_colour_that_says_nothing_earns_the_most_frequent_class() -> None:
    truth = np.tile(np.array([[0, 0, 0, 1]], dtype=np.uint8), (32, 8))
    pair = (np.full((32, 32, 3), 128, dtype=np.uint8), truth)
    assert colour_and_row_miou([pair], [pair], 2, VOID) == pytest.approx(0.75 / 2)


@pytest.mark.parametrize("empty", ["train", "val"])
def test_no_data_is_named(empty: str) -> None:
    pair = (np.zeros((2, 2, 3), dtype=np.uint8), mask([0, 1], [1, 0]))
    splits = {"train": [pair], "val": [pair]} | {empty: []}
    with pytest.raises(ValueError, match=empty):
        colour_and_row_miou(splits["train"], splits["val"], 2, VOID)
    with pytest.raises(ValueError, match=f"{empty}_masks"):
        majority_map_miou([m for _, m in splits["train"]], [m for _, m in splits["val"]], 2, VOID)


def test_wrong_sizes_and_truth_without_a_class_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        majority_map_miou([mask([0, 1])], [mask([0], [1])], 2, VOID)
    with pytest.raises(ValueError, match="no pixel of the truth"):
        majority_map_miou([mask([0, 1])], [mask([VOID, VOID])], 2, VOID)
    pair = (np.zeros((2, 3, 3), dtype=np.uint8), mask([0, 1], [1, 0]))
    with pytest.raises(ValueError, match="sizes must agree"):
        colour_and_row_miou([pair], [pair], 2, VOID)
