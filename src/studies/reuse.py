"""What was trained already, by the same code on the same data, is not trained again."""

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.config import Config
from src.datasets.publishing import publishing
from src.durable import write_json
from src.environment import describe_environment
from src.errors import UserError
from src.protocol import describe_pretraining
from src.resume import differing_keys, flatten
from src.run_folder import OUTPUTS, Launch, read_run
from src.studies.ledger import Job, claim, note, read_jobs
from src.studies.reading import Run, read_runs

# Keys that change nothing of what a run leaves behind.
UNSEEN = (
    *("study", "training.resume", "training.checkpoint_seconds", "training.log_every", "loader.num_workers"),
    *("dataset.root", "dataset.cache"),
)


def find_finished(
    numbers: Sequence[int], launches: Sequence[Launch], configs: Sequence[Config], sweep: Path | None = None
) -> dict[int, Run]:
    """The finished run of the same result, for those of these jobs that have one; says of how many others a run may not be taken.

    `sweep` is the folder of a sweep that goes on, whose own runs are left out.
    """
    finished: dict[str, list[Run]] = defaultdict(list)
    for run in _finished_runs(str(configs[0].name)):
        if sweep is None or not run.folder.resolve().is_relative_to(sweep.resolve()):
            finished[str(run.facts.get("short_id"))].append(run)
    alike = [number for number in numbers if launches[number].short_id in finished]
    here = describe_environment() if alike else {}
    found = {}
    for number in alike:
        launch, config = launches[number], configs[number]
        with _told(number):
            if twin := next((run for run in finished[launch.short_id] if is_same(run, launch, config, here)), None):
                found[number] = twin
    if others := len(alike) - len(found):
        need = "committed code, packages, data and device must be the same, and on the CPU threads=NUMBER given"
        if here["git_dirty"]:
            need = "something is not committed here (git status; a new file in conf/ counts)"
        print(f"{others} jobs had a finished run of the same keys, which is not taken over: {need}", flush=True)
    return found


def take_over(sweep: Path, found: Mapping[int, Run]) -> None:
    """Gives jobs that were not begun yet the finished run that was found for them, and says so."""
    for job in [job for job in read_jobs(sweep) if job.status == "queued" and job.number in found]:
        run = found[job.number]
        with _told(job.number):
            if _takes(sweep, job, run):
                print(f"job {job.number} was finished before, in {run.folder}; study.again=true runs it again", flush=True)


@contextmanager
def _told(number: int) -> Iterator[None]:
    """A full disk, a damaged run: nothing that keeps a job from being trained."""
    try:
        yield
    except (OSError, UserError) as error:
        print(f"job {number} was finished before, but is trained again ({_reason(error)})", file=sys.stderr, flush=True)


def _finished_runs(name: str) -> list[Run]:
    """Of this name; folders that cannot be read are told, and have none."""
    runs = []
    for home in (OUTPUTS / name, OUTPUTS / "multirun" / name):
        try:
            runs += [run for run in read_runs(home)[0] if run.status == "finished"]
        except OSError as error:
            print(f"finished runs are not looked for in {home} ({error})", file=sys.stderr, flush=True)
    return runs


def _takes(sweep: Path, job: Job, run: Run) -> bool:
    """Whether the job is finished by that; if it fails, the job's folder is as if nothing had been tried."""
    with claim(sweep, job.number) as is_mine:
        if not is_mine or job.folder.exists():
            return False
        try:
            adopt(sweep, job, run)
        except BaseException:
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        return True


def _reason(error: Exception) -> str:
    """One line, of several files that could not be copied too."""
    return str(error.args[0][0][-1]) if isinstance(error, shutil.Error) and isinstance(error.args[0], list) else str(error)


def is_same(run: Run, launch: Launch, config: Config, here: dict[str, Any]) -> bool:
    """Whether the run can be shown to be what this launch would give, here and now.

    Code counts as the same where both are one commit with nothing uncommitted; a run that began with fewer epochs or went on
    with other code or hardware, one with several ranks, and one whose files are not all there is another one.
    """
    facts, now = run.facts, flatten(launch.stored)
    differing = differing_keys(run.config, now)
    is_whole = not facts.get("failed_writes") and (run.folder / "checkpoints" / "last.pt").is_file()
    if not is_whole or any(not _is_unseen(key) for key in differing):
        return False
    if facts.get("ranks") != 1 or facts.get("lengthened") or facts.get("mixed", True) or facts.get("best_score") is None:
        return False
    if here["git_commit"] is None or here["git_dirty"] or facts.get("git_dirty"):
        return False
    if any(facts.get(key) != here[key] for key in ("git_commit", "packages")):
        return False
    pretraining = describe_pretraining(config.model.get("weights"), {})
    return (facts.get("protocol") or {}).get("pretraining") == pretraining and _same_data_and_device(facts, config, here)


def _is_unseen(key: str) -> bool:
    return any(key == unseen or key.startswith(f"{unseen}.") for unseen in UNSEEN)


def _same_data_and_device(facts: dict[str, Any], config: Config, here: dict[str, Any]) -> bool:
    from src.build import checked_datasets
    from src.device import choose_compute

    compute = choose_compute(config.device, config.precision)
    if (facts.get("device"), facts.get("precision")) != (compute.name, compute.precision):
        return False
    if compute.device.type == "cpu" and (
        facts.get("host") != here["host"]  # as the device's name says little
        or config.threads is None  # how many the job would get, its launcher decides
        or facts.get("threads") != config.threads
    ):
        return False
    train, val = checked_datasets(config)
    return facts.get("data_fingerprint") == {"train": train.fingerprint, "val": val.fingerprint}


def adopt(sweep: Path, job: Job, run: Run) -> None:
    """The job's folder becomes a copy of the run's, in one step; large files, which nobody writes to, are shared."""
    with publishing(job.folder) as partial:
        for name in run.folder.iterdir():
            if name.name.startswith(".") or name.name == "run.json":
                continue
            copy = _share if name.name == "checkpoints" else shutil.copy2
            if name.is_dir():
                shutil.copytree(name, partial / name.name, copy_function=copy, ignore=shutil.ignore_patterns(".*"))
            else:
                shutil.copy2(name, partial / name.name)
        write_json(partial / "run.json", read_run(run.folder) | {"reused": str(run.folder)})
    note(sweep, job.number, "finished", score=run.facts["best_score"], reused=str(run.folder))


def _share(source: str, target: str) -> None:
    try:
        os.link(source, target)  # checkpoints are replaced, never written into
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
