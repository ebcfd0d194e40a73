"""A study's page: one HTML file that needs no network, and the same as Markdown."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from src.config import is_harmless
from src.durable import replace_text
from src.run_folder import now
from src.studies.ledger import Job, read_jobs, read_study
from src.studies.reading import Run, read_runs
from src.studies.report.charts import charts_of
from src.studies.report.differences import Differences, read_differences
from src.studies.report.saving import sweeps_in
from src.studies.statistics.effects import Effect, effects, silent_keys
from src.studies.statistics.sentences import Measure, say
from src.studies.statistics.standing import Row, Table, standings

TEMPLATES = Path(__file__).parent / "templates"
HTML, MARKDOWN = "report.html", "report.md"
MOST_TRACEBACK = 4000  # characters of train.log, its end


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
    """

    name: str
    question: str | None
    runs: list[Run]
    jobs: list[Job]
    tables: list[Table]
    problems: list[str]
    differences: Differences | None


def read_results(folder: Path) -> Results:
    """What a sweep's folder holds, or a folder of several."""
    runs, problems = read_runs(folder)
    sweeps = sweeps_in(folder)
    studies = [read_study(sweep) for sweep in sweeps]
    question = next((study.question for study in studies if study.question), None)
    name = studies[0].name if studies else folder.parent.name if folder.parent.name not in ("", ".") else folder.name
    tables, jobs = standings(runs), [job for sweep in sweeps for job in read_jobs(sweep)]
    differences = read_differences(folder, tables[0]) if tables else None
    return Results(name, question, runs, jobs, tables, problems, differences)


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Writes report.html and report.md, each in one step, and gives the path of the first."""
    results = read_results(folder)
    output = output or folder
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / MARKDOWN, render("report.md.jinja", results))
    replace_text(output / HTML, render("report.html.jinja", results))
    return output / HTML


def render(template: str, results: Results) -> str:
    """The page from its template; everything that comes from runs is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.jinja"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["points"] = lambda value, table: (
        "-" if value is None or math.isnan(value) else table.measure.number(value)
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return environment.get_template(template).render(
        results=results,
        counts=counts(results),
        answers=[answer(table) for table in results.tables],
        charts=[charts_of(table) for table in results.tables] if template.endswith(".html.jinja") else [],
        classes=[class_rows(table) for table in results.tables],
        failures=failures(results),
        shared=shared,
        without_network=without_network,
        machine=machine(results.runs),
        command=command,
        plotlyjs=get_plotlyjs() if template.endswith(".html.jinja") else "",
        written=now()[:16].replace("T", " "),
    )


def counts(results: Results) -> dict[str, int]:
    """How many jobs stand how."""
    stands = [job.status for job in results.jobs] or [run.status for run in results.runs]
    return {status: stands.count(status) for status in dict.fromkeys(stands)}


@dataclass(frozen=True)
class Answer:
    """What may be said of a table, in sentences.

    Attributes:
        first: Its first row, and from how many of the others it can be told.
        sizes: How much each key matters; empty where one key alone varies.
        keys: Of each key by itself, its best value against the next.
        more: Its best value against the others.
        silent: Of which keys by themselves nothing can be said, and why; empty where there is none.
        rows: The first row against each other one.
    """

    first: str
    sizes: str
    keys: list[str]
    more: list[str]
    silent: str
    rows: list[str]


def answer(table: Table) -> Answer:
    """In sentences."""
    row, measure = table.rows[0], table.measure
    interval = "" if row.best.low is None else f"95 %: {measure.interval(row.best)}; "
    seeds = f"{row.seeds} seed{'' if row.seeds == '1' else 's'}"
    if len(table.rows) == 1:
        return Answer(f"One configuration alone: {measure.amount(row.best.mean)} ({interval}{seeds}).", "", [], [], "", [])
    first = f"First of {len(table.rows)} is {row.label} with {measure.amount(row.best.mean)} ({interval}{seeds}){_lead(table)}."
    found = effects(table)
    by_key: dict[str, list[Effect]] = {}
    for effect in found:
        by_key.setdefault(effect.key, []).append(effect)
    sizes = [
        f"{of[-1].bundle} {measure.amount(abs(of[-1].claim.difference))}" for of in by_key.values()
    ]  # the last is the largest
    told = f"Best against worst value of each key, the others held the same: {', '.join(sizes)}." if sizes else ""
    nearest = [told_of(of[0], measure) for of in by_key.values()]
    more = [told_of(effect, measure) for of in by_key.values() for effect in of[1:]]
    silent = silent_keys(table, found)
    why = "the combinations of the other keys lack runs with all its values and the same seeds"
    nothing = f"Nothing can be said of {' or '.join(silent)} alone: {why}." if silent else ""
    rows = [say(claim, row.label, other.label, measure) for other, claim in zip(table.rows[1:], table.claims, strict=True)]
    return Answer(first, told, nearest, more, nothing, rows)


def _lead(table: Table) -> str:
    """How far the first row is to be believed to be the best."""
    sign = 1 if table.measure.mode == "max" else -1  # where seeds are missing, another may be ahead on those that both have
    others, behind = len(table.claims), sum(claim.holds and sign * claim.difference > 0 for claim in table.claims)
    if behind == others:
        return f", distinguishable from {'all others' if others > 1 else 'the other'}"
    if not behind:
        return ", which nothing here shows to be the best"
    return f", distinguishable from {behind} of the {others} others"


def told_of(effect: Effect, measure: Measure) -> str:
    """In two sentences."""
    said = say(effect.claim, f"{effect.name}={effect.best}", f"{effect.name}={effect.other}", measure)
    moving = f"; moving with {effect.name}: {', '.join(effect.along)}" if effect.along else ""
    return f"{said} Mean over {effect.contexts} combination{'s' if effect.contexts > 1 else ''} of the other keys{moving}."


def class_rows(table: Table) -> tuple[list[str], list[tuple[Row, list[float]]]]:
    """Names of the classes, and the mean IoU of each at the best epoch, row by row."""
    names = [str(name) for name in table.rows[0].runs[0].facts.get("class_names") or []]
    found = []
    for row in table.rows:
        scores = [run.facts.get("best_scores") or {} for run in row.runs]
        values = [[s[f"val/iou/{name}"] for s in scores if isinstance(s.get(f"val/iou/{name}"), float)] for name in names]
        found.append((row, [sum(v) / len(v) if v else math.nan for v in values]))
    return names, found


def command(row: Row) -> str:
    """How the row is trained again, with all its seeds."""
    run, seeds = row.runs[0], [run.seed for run in row.runs]
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
    file = folder / "train.log"
    return file.read_text(encoding="utf-8", errors="replace")[-MOST_TRACEBACK:] if file.is_file() else ""


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
    first, runs = table.rows[0].runs[0].config, [run for row in table.rows for run in row.runs]
    keys = [key for key in first if not is_harmless(key) and not key.startswith("study.") and key not in ("seed", "name")]
    return {key: first[key] for key in keys if all(run.config.get(key) == first[key] for run in runs)}


def without_network(table: Table) -> dict[str, float]:
    """What trivial predictors score on the same images, where a run has found out (training.baselines)."""
    known = [run.facts["baselines"] for row in table.rows for run in row.runs if run.facts.get("baselines")]
    return known[0] if known and table.measure.tag == "val/miou" else {}


def told(value: Any) -> str:
    """A dictionary as words."""
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
