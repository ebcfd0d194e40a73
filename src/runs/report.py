"""`python -m src.runs report`: a study's page."""

from collections.abc import Sequence
from pathlib import Path

from src.durable import writing
from src.errors import ConfigError, UserError
from src.studies.reading import find_sweep

OPTIONS = {
    "output": "output=FOLDER (where the page goes)",
    "save": "save=FOLDER (a copy of what it is made of)",
    "root": "root=FOLDER (where the data are now)",
}


def main(words: Sequence[str]) -> None:
    """Writes the page and says where it is."""
    options: dict[str, str] = {}
    names = []
    for word in words:
        key, sign, value = word.partition("=")
        if sign and key not in OPTIONS:
            raise ConfigError(f"{word}: no such key; allowed are {', '.join(OPTIONS.values())}")
        if sign:
            options[key] = value
        else:
            names.append(word)
    if len(names) != 1:
        raise ConfigError(
            "report takes one study: the name of a sweep under outputs/multirun, its folder, or a folder of several"
        )
    folder = find_sweep(names[0])

    from src.studies.report.page import write_report
    from src.studies.report.saving import save_data

    refresh_differences(folder, options.get("root"))
    if "save" in options:
        with writing(Path(options["save"])):
            save_data(folder, Path(options["save"]))
        print(f"saved what the page is made of: {options['save']}")
    with writing(folder):
        print(f"written: {write_report(folder, Path(options['output']) if 'output' in options else None)}")


def refresh_differences(folder: Path, root: str | None) -> None:
    """Finds where the two best configurations differ most, if that is not known yet; says why if it cannot be found."""
    from src.studies.reading import read_runs
    from src.studies.report.differences import best_two, read_differences, write_differences
    from src.studies.statistics.standing import standings

    tables = standings(read_runs(folder)[0])
    if not tables or len(best_two(tables[0])) < 2 or read_differences(folder, tables[0]):
        return

    lack = [run.folder.name for _, run in best_two(tables[0]) if not (run.folder / "checkpoints").is_dir()]
    if lack:
        print(f"not in the page, where the two best differ frame by frame: no checkpoints here of {' and '.join(lack)}")
        return

    from src.studies.report.contrast import find_differences

    print(f"looking at each frame with {' and '.join(run.folder.name for _, run in best_two(tables[0]))}", flush=True)
    try:
        write_differences(folder, find_differences(tables[0], root))
    except Exception as error:  # even memory that is full, or a mistake of ours, must not cost the page
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(f"not in the page, where the two best differ frame by frame: {told.partition(chr(10))[0]}")
