"""Reports on a data set before anything is trained on it. `python -m src.doctor --help` says how to ask for it."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported only once everything is composed and checked
    from src.config import DoctorConfig
    from src.datasets.reader import Source
    from src.diagnosis.audit import SplitAudit

PURPOSE = "Looks at every file of a data set and says what is wrong with it, and what scores on it can mean."
EXAMPLES = """\
  python -m src.doctor dataset=camvid dataset.root=FOLDER
  python -m src.doctor format=json > report.json
Exit code: 0 all well or warnings, 1 warnings with strict=true (or something was asked wrongly), 2 training would be wrong."""


def examine(config: "DoctorConfig") -> int:
    """Prints the report, saves its figure and returns the exit code."""
    import json

    from src.build import build_source
    from src.diagnosis.report import diagnose, render_page
    from src.errors import DataError

    as_json = config.format == "json"
    try:
        source, image_size = build_source(config.dataset)
        report, splits = diagnose(source, image_size, config.dataset.get("mask_resize", "center"))
    except DataError as error:  # there is nothing to look at
        print(f"error: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"errors": [str(error)], "exit_code": 2}, indent=2))
        return 2
    code = 2 if report["errors"] else 1 if report["warnings"] and config.strict else 0
    report["figure"] = draw(config, source, splits)
    print(json.dumps(report | {"exit_code": code}, indent=2, allow_nan=False) if as_json else render_page(report))
    return code


def draw(config: "DoctorConfig", source: "Source", splits: "list[SplitAudit]") -> str | None:
    """Saves the figure and gives its path; None where there is nothing to show, or no place for it, which is said."""
    from src.diagnosis.figure import save_figure
    from src.durable import writing
    from src.errors import WriteError
    from src.run_folder import OUTPUTS, claim_folder, short_hash

    shown = [split for split in splits if split.masks]
    if not shown:
        return None
    try:
        figure = claim_folder(OUTPUTS / "doctor", short_hash(config.dataset)) / "figure.png"
        with writing(figure):
            save_figure(figure, shown, source.labels)
    except WriteError as error:
        print(f"no figure: {error}", file=sys.stderr)
        return None
    return str(figure)


def main() -> None:
    """The command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from src.help import help_text

        print(help_text("doctor", "doctor", PURPOSE, EXAMPLES, is_swept=False), end="")
        return
    from src import cli
    from src.config import check_doctor

    cli.answer(examine, check_doctor, "doctor")


if __name__ == "__main__":
    main()
