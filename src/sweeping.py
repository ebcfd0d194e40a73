"""A sweep, from the words of its command line to its first job: its points, their plan, its folder."""

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from src.composing import compose_checked, prepare
from src.config import Config
from src.errors import ConfigError, UserError
from src.redaction import Redactor
from src.run_folder import STUDY, Launch
from src.studies.devices import offer_devices
from src.studies.ledger import read_jobs, read_study
from src.studies.parents import SWEEPER
from src.studies.points import Point, expand_points, is_sweep, job_names
from src.studies.progress import write_page
from src.studies.search import ask, open_study, read_space, typical_point
from src.studies.sweep import budget_of, claim_sweep, command_to_go_on, refuse_duplicates, unfinished
from src.sweep_command import Command, is_search, read_command, tell_hydra

CONFIG = "config"  # stem of the primary YAML file in conf/


def sweep(overrides: list[str], check: Callable[[Config], None], redactor: Redactor, run_jobs: Callable[[], None]) -> None:
    """Checks every point, claims the sweep's folder and runs its jobs.

    Args:
        overrides: Words of the command line.
        check: What only torch and the data can tell of a point; raises UserError.
        redactor: Learns the secrets of every point.
        run_jobs: Hydra's sweeper and launcher, which read the words in `sys.argv`.
    """
    gc.enable()
    command = read_command(overrides)
    offer_devices()
    os.environ[SWEEPER] = str(os.getpid())
    begin = claim_search if is_search(command.words) else plan_and_claim
    if folder := begin(command, check, redactor):
        from src.build import forget_datasets

        forget_datasets()
        tell_hydra(command, folder)
        try:
            run_jobs()
        except KeyboardInterrupt:
            write_page(folder)
            print(f"this command stops here; {command_to_go_on(folder)} goes on with the sweep", file=sys.stderr, flush=True)
            raise


def claim_search(command: Command, check: Callable[[Config], None], redactor: Redactor) -> Path:
    """The folder of a search, once a point of it was checked.

    Raises:
        ConfigError: If it is asked for what needs points that are known beforehand, or that point cannot be trained.
    """
    if asked := [name for name, value in vars(command.options).items() if value and name != "resume"]:
        raise ConfigError(f"study.{asked[0]}: not for a search, whose points are not known beforehand; leave it out")
    from hydra_plugins.search_sweeper import register

    register()
    fixed, space = read_space(command.words)
    ask(open_study("a try", "max", None, None), space)  # refuses an interval before anything is made on disk
    launch, config = prepare(CONFIG, fixed + typical_point(space), redactor)
    if launch.config["study"]:
        raise ConfigError("study: a search finds its points by itself; leave the study out")
    for word in command.words:
        if word.lstrip("+").startswith("hydra.sweeper.n_trials=") and int(word.partition("=")[2]) < 1:
            raise ConfigError(f"{word}; allowed are whole numbers from 1")
    refuse_one_folder(config)
    check(config)
    folder = claim_sweep(command.folder, command.words, [], [launch], command.options)
    print(f"search: {folder}")
    print(f"if it is cut: {command_to_go_on(folder)}", flush=True)
    return folder


def plan_and_claim(command: Command, check: Callable[[Config], None], redactor: Redactor) -> Path | None:
    """The folder of a sweep that may begin; None if only its plan was asked for."""
    options = command.options
    points, launches, configs, start = check_points(command.words, check, redactor)
    known = command.folder if command.folder and (command.folder / STUDY).exists() else None
    left, untouched = to_do(known, len(points))
    found = {}
    if not (options.again or (known and read_study(known).again)):
        from src.studies.reuse import find_finished

        found = find_finished(untouched, launches, configs, known)
    costs = {}
    if not known or options.plan:  # a sweep that goes on has its plan
        from src.studies.plan import check_budget, make_plan, tell_plan, threads_of_each

        new = [number for number in left if number not in found]
        launcher = compose_checked(CONFIG, points[0])[1].launcher
        planned = make_plan([configs[number] for number in new], start, threads_of_each(launcher))
        costs = dict(zip(new, planned, strict=True))
        print(tell_plan([job_names(points)[number] for number in new], list(costs.values())), flush=True)
        if found:
            print(f"{len(found)} {'more ' if costs else ''}were finished before and are taken over")
        check_budget(budget_of(launches[0].config["study"]), list(costs.values()))
    if options.plan:
        print("study.plan=true stops here: times are those of this machine, now; no job was begun")
        return None
    folder = claim_sweep(command.folder, command.words, points, launches, options, costs)
    if found:
        from src.studies.reuse import take_over

        take_over(folder, found)
    print(f"sweep of {len(points)} jobs, {len(unfinished(folder))} to run: {folder}")
    print(f"if it is cut: {command_to_go_on(folder)}", flush=True)
    return folder


def to_do(known: Path | None, number: int) -> tuple[list[int], list[int]]:
    """Of that many jobs the ones that are not finished, and those of them that were never begun, in the sweep that goes on."""
    if not known:
        return list(range(number)), list(range(number))
    left = [job for job in read_jobs(known) if job.number < number and job.status != "finished"]
    untouched = [job.number for job in left if job.status == "queued" and not job.folder.exists()]
    return [job.number for job in left], untouched


def refuse_one_folder(config: Config) -> None:
    """Raises ConfigError if a job is to go on in the folder of a run, for each has its own in the sweep's."""
    if config.training.resume not in ("never", "auto"):
        raise ConfigError(
            f"training.resume={config.training.resume}: a job of a sweep has a folder of its own; with -m allowed are never and"
            " auto, and study.resume=FOLDER goes on with a sweep"
        )


def check_points(
    words: list[str], check: Callable[[Config], None], redactor: Redactor
) -> tuple[list[Point], list[Launch], list[Config], float]:
    """Every point of a sweep, composed and checked: first what needs no torch, of all of them; and the seconds of one alone."""
    if several := [word for word in words if word.startswith("study=") and is_sweep(word)]:
        raise ConfigError(f"{several[0]}: one study a sweep; run them one after another")
    first = [word for word in expand_points(words, None)[0] if not is_sweep(word)]
    study = prepare(CONFIG, first, redactor)[0].config["study"]
    budget_of(study)
    start = time.process_time()  # as a job begins: imports, one point composed
    points = expand_points(words, study)
    prepared = [prepare(CONFIG, point, redactor) for point in points]
    for _, config in prepared:
        refuse_one_folder(config)
    refuse_duplicates(points, [launch for launch, _ in prepared])
    composed = time.process_time()
    for number, (point, (_, config)) in enumerate(zip(points, prepared, strict=True)):
        try:
            check(config)
        except UserError as error:
            raise ConfigError(f"{' '.join(point)}: {error}") from error
        if number == 0:
            start += time.process_time() - composed
    return points, [launch for launch, _ in prepared], [config for _, config in prepared], start
