"""A study's page: one HTML file that needs no network, and the same as Markdown."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from src.config import is_harmless
from src.durable import replace_text
from src.escaping import code, code_block, markdown
from src.stored_files import within
from src.studies.ledger import Job, read_jobs, read_study
from src.studies.overlap import beside_others
from src.studies.reading import Run, read_runs
from src.studies.report.answers import answer
from src.studies.report.charts import charts_of
from src.studies.report.differences import Differences, best_two, read_differences
from src.studies.report.saving import sweeps_in
from src.studies.statistics.standing import Row, Table, standings
from src.times import now

TEMPLATES = Path(__file__).parent / "templates"
HTML, MARKDOWN = "report.html", "report.md"
MOST_TRACEBACK = 4000  # bytes of train.log, its end


@dataclass(frozen=True)
class Results:
    """Everything that a page shows.

    Attributes:
        name: Of the study.
        question: That it answers, or None.
        runs: All that were begun.
        jobs: As the ledgers of its sweeps have them.
        tables: Rows that may be ranked together.
        problems: What could not be read.
        differences: Between the two best configurations of the first table, frame by frame, or None.
        shared: Folders of the runs that trained beside others on one machine.
    """

    name: str
    question: str | None
    runs: list[Run]
    jobs: list[Job]
    tables: list[Table]
    problems: list[str]
    differences: Differences | None
    shared: set[Path]


def read_results(folder: Path) -> Results:
    """What a sweep's folder holds, or a folder of several."""
    runs, problems = read_runs(folder)
    sweeps = sweeps_in(folder)
    studies = [read_study(sweep) for sweep in sweeps]
    question = next((study.question for study in studies if study.question), None)
    name = studies[0].name if studies else folder.parent.name if folder.parent.name not in ("", ".") else folder.name
    tables, jobs = standings(runs), [job for sweep in sweeps for job in read_jobs(sweep)]
    differences = read_differences(folder, tables[0]) if tables else None
    shared = beside_others(runs, sweeps, datetime.now().astimezone())
    return Results(name, question, runs, jobs, tables, problems, differences, shared)


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Writes report.html and report.md, each in one step, and gives the path of the first."""
    results = read_results(folder)
    output = output or folder
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / MARKDOWN, render("report.md.jinja", results))
    replace_text(output / HTML, render("report.html.jinja", results))
    return output / HTML


def render(template: str, results: Results) -> str:
    """The page from its template; everything is escaped, for HTML by Jinja2 itself."""
    is_html = template.endswith(".html.jinja")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=is_html,
        finalize=None if is_html else markdown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "code": code, "code_block": code_block}
    return environment.get_template(template).render(
        results=results,
        counts=counts(results),
        answers=[answer(table) for table in results.tables],
        charts=[charts_of(table, results.shared) for table in results.tables] if is_html else [],
        classes=[class_rows(table) for table in results.tables],
        beside=[beside_told(table, results.shared) for table in results.tables],
        can_differ=bool(results.tables) and len(best_two(results.tables[0])) > 1,
        failures=failures(results),
        shared=shared,
        without_network=without_network,
        machine=machine(results.runs),
        command=command,
        data_of=data_of,
        plotlyjs=Markup(get_plotlyjs()) if is_html else "",
        written=now()[:16].replace("T", " "),
    )


def points(value: float | None, table: Table) -> str:
    """A score in the table's unit, a dash where there is none."""
    return "-" if value is None or math.isnan(value) else table.measure.number(value)


def counts(results: Results) -> dict[str, int]:
    """How many jobs stand how."""
    stands = [job.status for job in results.jobs] or [run.status for run in results.runs]
    return {status: stands.count(status) for status in dict.fromkeys(stands)}


def data_of(row: Row) -> dict[str, Any]:
    """What scripts of the page may read of a row; what is no number is null."""
    scores = {seed: score if math.isfinite(score) else None for seed, score in row.scores.items()}
    return {"label": row.label, "scores": scores, "mean": row.best.mean if row.runs else None}


def class_rows(table: Table) -> tuple[list[str], list[tuple[Row, list[float]]]]:
    """Names of the classes, and the mean IoU of each at the best epoch, row by row."""
    names: list[str] = table.rows[0].begun[0].facts.get("class_names") or []
    found = []
    for row in (row for row in table.rows if row.runs):
        scores = [run.facts.get("best_scores") or {} for run in row.runs]
        values = [[s[f"val/iou/{name}"] for s in scores if s.get(f"val/iou/{name}") is not None] for name in names]
        found.append((row, [sum(v) / len(v) if v else math.nan for v in values]))
    return names, found


def beside_told(table: Table, shared: set[Path]) -> str:
    """A sentence on the rows whose runs trained beside others; empty where there is none."""
    runs = [run for row in table.rows for run in row.runs + row.diverged]
    beside = sum(run.folder in shared for run in runs)
    if not beside:
        return ""
    rows = [row.label for row in table.rows if any(run.folder in shared for run in row.runs + row.diverged)]
    which = "of every configuration" if len(rows) == len(table.rows) else f"of {'; '.join(rows)}"
    return (
        f"{beside} of {len(runs)} runs trained beside others on one machine, which slows all of them. Their speed and seconds"
        f" are in no chart: {which}."
    )


def command(row: Row) -> str:
    """How the row is trained again, with all its seeds."""
    run, seeds = row.begun[0], sorted(run.seed for run in row.begun)
    words = [word for word in run.words if not word.startswith("training.resume=")]
    if len(seeds) == 1 and not any(key.startswith("study.") for key in run.config):
        return "python -m src.train " + shlex.join(words)
    if len(seeds) > 1:
        words = [word for word in words if not word.startswith("seed=")] + [f"seed={','.join(map(str, seeds))}"]
    return "python -m src.train -m " + shlex.join([*words, "study.again=true"])  # one job a seed: keys replace a study's


@dataclass(frozen=True)
class Failure:
    """A run or a job that failed: the name of its folder, why, and the end of its log."""

    name: str
    error: str
    log: str


def failures(results: Results) -> list[Failure]:
    """Of runs, and of jobs that failed before they were one, which the ledger alone knows."""
    errors = {run.folder: str(run.facts.get("error")) for run in results.runs if run.status == "failed"}
    errors = {job.folder: str(job.error) for job in results.jobs if job.status == "failed"} | errors
    return [Failure(folder.name, error, end_of_log(folder) or error) for folder, error in errors.items()]


def end_of_log(folder: Path) -> str:
    """Where a traceback stands; empty without a log."""
    file = within(folder, "train.log")
    if not file.is_file():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - MOST_TRACEBACK))
        return log.read(MOST_TRACEBACK).decode(errors="replace")


def machine(runs: Sequence[Run]) -> dict[str, str]:
    """What all was computed with; several values where runs differ."""
    keys: dict[str, Any] = {"device": "device", "precision": "precision", "packages": "packages"}
    keys |= {"training data": "data_fingerprint"}
    commits = {
        f"{run.facts.get('git_commit')}{', with more that is not committed' * bool(run.facts.get('git_dirty'))}" for run in runs
    }
    return {name: "; ".join(sorted({told(run.facts.get(key)) for run in runs})) for name, key in keys.items()} | {
        "commit": "; ".join(sorted(commits))
    }


def shared(table: Table) -> dict[str, Any]:
    """Keys that alter results and that all rows have the same."""
    first, runs = table.rows[0].begun[0].config, [run for row in table.rows for run in row.begun]
    keys = [key for key in first if not is_harmless(key) and not key.startswith("study.") and key not in ("seed", "name")]
    return {key: first[key] for key in keys if all(run.config.get(key) == first[key] for run in runs)}


def without_network(table: Table) -> dict[str, float]:
    """What trivial predictors score on the same images, where a run has found out (training.baselines)."""
    known = [run.facts["baselines"] for row in table.rows for run in row.begun if run.facts.get("baselines")]
    return known[0] if known and table.measure.tag == "val/miou" else {}


def told(value: Any) -> str:
    """A dictionary as words."""
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
