"""What may be said of this study: `python -m experiments.channels_by_init.answers`, from what is committed beside it."""

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
    tell("kaiming against each, at the textbook gains", [pair for width in widths for pair in against_kaiming(rows, width)])
    kaiming = [find(rows, width, "kaiming") for width in widths]
    tell("width, with kaiming", [(wide, narrow) for narrow, wide in itertools.pairwise(kaiming)])


def find(rows: tuple[Row, ...], width: tuple[int, ...], init: str) -> Row:
    """The row of a width and an init."""
    return next(row for row in rows if (tuple(row.values["model.channels"]), row.values["model.init"]) == (width, init))


def against_kaiming(rows: tuple[Row, ...], width: tuple[int, ...]) -> list[tuple[Row, Row]]:
    """Kaiming and each other init."""
    return [(find(rows, width, "kaiming"), find(rows, width, init)) for init in ("normal", "xavier", "orthogonal")]


def tell(title: str, pairs: list[tuple[Row, Row]]) -> None:
    """One sentence a pair."""
    print(f"## {title}\n")
    claims = holm([compare_configurations(one.scores, other.scores) for one, other in pairs])
    for (one, other), claim in zip(pairs, claims, strict=True):
        print(f"- {say(claim, one.label, other.label, MIOU)}")
    print()


if __name__ == "__main__":
    main()
