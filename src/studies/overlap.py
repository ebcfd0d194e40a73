"""Which runs trained beside others on the same machine, so that their speed says little about their configuration."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from src.studies.ledger import is_claimed, read_events, read_study
from src.studies.reading import LONG_AGO, Run
from src.times import parse_time


@dataclass(frozen=True)
class Span:
    """A time in which a process worked for a run, on a host (None: which one is not known)."""

    folder: Path
    host: str | None
    start: datetime
    end: datetime

    def overlaps(self, other: "Span") -> bool:
        """Whether both worked at one time on one host; one that follows the other does not."""
        return self.host == other.host and self.start < other.end and other.start < self.end


def beside_others(runs: Sequence[Run], sweeps: Sequence[Path], now: datetime) -> set[Path]:
    """Folders of the runs during which another one trained on the same host.

    A sweep's ledger says when each attempt at a job began and ended; of other runs `start` and `end` are known, so that the time
    between an interruption and the resumption counts as theirs. A copy of a run that a sweep took over is that run.

    Args:
        runs: That are looked at.
        sweeps: Folders of sweeps, all jobs of which are reckoned with.
        now: At which attempts end that are still going on.
    """
    of_jobs = [span for sweep in sweeps for span in spans_of_sweep(sweep, now)]
    told = {span.folder.resolve() for span in of_jobs}
    spans = of_jobs + [span for run in runs if run.folder.resolve() not in told for span in span_of_run(run, now)]
    twins = {run.folder.resolve(): (run.start, run.facts.get("short_id")) for run in runs}
    found, working = set(), defaultdict[str | None, list[Span]](list)
    for span in sorted(spans, key=lambda span: span.start):
        before = [one for one in working[span.host] if one.end > span.start]
        for one in before:
            if span.overlaps(one) and not _is_one_run(span, one, twins):
                found |= {span.folder.resolve(), one.folder.resolve()}
        working[span.host] = [*before, span]
    return {run.folder for run in runs if run.folder.resolve() in found}


def spans_of_sweep(sweep: Path, now: datetime) -> list[Span]:
    """One for each attempt at a job; one whose end was not written down, as its sweeper was killed, counts as a second."""
    names, found = [job["name"] for job in read_study(sweep).jobs], []
    events = [event for event in read_events(sweep) if event["job"] in range(len(names))]
    for number, name in enumerate(names):
        own = [event for event in events if event["job"] == number]
        for place, event in enumerate(own):
            start = parse_time(event.get("time"))
            if event["status"] != "running" or start is None:
                continue
            after = own[place + 1] if place + 1 < len(own) else {"status": "running"}
            end = parse_time(after.get("time")) if after["status"] != "running" else None
            if event is own[-1] and is_claimed(sweep, number):
                end = now
            found.append(Span(sweep / name, event.get("host"), start, end or start + timedelta(seconds=1)))
    return found


def span_of_run(run: Run, now: datetime) -> list[Span]:
    """From `start` to `end`, or to now where it is running; none where these are not known."""
    end = now if run.status == "running" else run.end
    return [Span(run.folder, run.facts.get("host"), run.start, end)] if LONG_AGO < run.start <= end else []


def _is_one_run(a: Span, b: Span, twins: Mapping[Path, tuple[object, ...]]) -> bool:
    first, second = a.folder.resolve(), b.folder.resolve()
    return first == second or (first in twins and twins[first] == twins.get(second))
