"""Reports on a data set before anything is trained on it. `python -m src.doctor --help` says how to ask for it."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported only once everything is composed and checked
    from src.config import DoctorConfig

PURPOSE = "Looks at every file of a data set and says what is wrong with it, and what scores on it can mean."
EXAMPLES = """\
  python -m src.doctor dataset=camvid dataset.root=FOLDER
  python -m src.doctor format=json > report.json
Exit code: 0 all well or warnings, 1 warnings with strict=true, 2 training on it would be wrong."""


def examine(config: "DoctorConfig") -> int:
    """Prints the report, saves its figure and returns the exit code."""
    import json

    from src.build import build_source
    from src.diagnosis.figure import save_figure
    from src.diagnosis.report import diagnose, render_page
    from src.errors import DataError
    from src.run_folder import OUTPUTS, claim_folder, short_hash

    try:
        source, image_size = build_source(config.dataset)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report, splits = diagnose(source, image_size)
    code = 2 if report["errors"] else 1 if report["warnings"] and config.strict else 0
    if any(split.masks for split in splits):
        figure = claim_folder(OUTPUTS / "doctor", short_hash(config.dataset)) / "figure.png"
        save_figure(figure, splits, source.labels)
        report["figure"] = str(figure)
    print(json.dumps(report | {"exit_code": code}, indent=2) if config.format == "json" else render_page(report), end="")
    if config.format == "text" and "figure" in report:
        print(f"\nfigure: {report['figure']}")
    return code


def main() -> None:
    """The command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from src.help import help_text

        print(help_text("doctor", "doctor", PURPOSE, EXAMPLES), end="")
        return
    from src import cli
    from src.config import check_doctor

    cli.answer(examine, check_doctor, "doctor")


if __name__ == "__main__":
    main()
