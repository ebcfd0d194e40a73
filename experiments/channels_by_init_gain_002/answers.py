"""What may be said of this study: `python -m experiments.channels_by_init_gain_002.answers`, from what is committed beside it."""

import itertools
from pathlib import Path

from src.studies.reading import read_runs
from src.studies.statistics.claims import compare_configurations, holm
from src.studies.statistics.sentences import MIOU, say
from src.studies.statistics.standing import Row, standings

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Families of comparisons, each corrected by itself."""
    rows = standings(read_runs(DATA)[0])[0].rows
    widths = sorted({tuple(row.values["model.channels"]) for row in rows})
    at_one_rate = [pair for width in widths for pair in against_kaiming(rows, width, 0.1)]
    tell("kaiming against each, all at lr 0.1", at_one_rate)
    tell(
        "kaiming at its rate (0.1) against normal at its own (0.03)",
        [pair for width in widths for pair in at_own_rate(rows, width)],
    )
    kaiming = [find(rows, width, "kaiming", 0.1) for width in widths]
    tell("width, with kaiming", [(wide, narrow) for narrow, wide in itertools.pairwise(kaiming)])


def find(rows: tuple[Row, ...], width: tuple[int, ...], init: str, rate: float) -> Row:
    """The row of a width, an init and a learning rate."""
    wanted = (list(width), init, rate)
    return next(
        row for row in rows if tuple(row.values[key] for key in ("model.channels", "model.init", "optimizer.lr")) == wanted
    )


def against_kaiming(rows: tuple[Row, ...], width: tuple[int, ...], rate: float) -> list[tuple[Row, Row]]:
    """Kaiming and each other init at one rate."""
    return [(find(rows, width, "kaiming", rate), find(rows, width, init, rate)) for init in ("normal", "xavier", "orthogonal")]


def at_own_rate(rows: tuple[Row, ...], width: tuple[int, ...]) -> list[tuple[Row, Row]]:
    """Kaiming and normal, each at the rate that suited it in the pilot."""
    return [(find(rows, width, "kaiming", 0.1), find(rows, width, "normal", 0.03))]


def tell(title: str, pairs: list[tuple[Row, Row]]) -> None:
    """One sentence a pair."""
    print(f"## {title}\n")
    claims = holm([compare_configurations(one.scores, other.scores) for one, other in pairs])
    for (one, other), claim in zip(pairs, claims, strict=True):
        print(f"- {say(claim, one.label, other.label, MIOU)}")
    print()


if __name__ == "__main__":
    main()
