"""Reads all that a report is made of: accounting, node events, the jobs' own records, the controller's journal."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainmaster.controller import lemons
from trainmaster.controller.journal import Journal
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.errors import ControllerError, SlurmError, TrainmasterError, UsageError
from trainmaster.launcher import record
from trainmaster.launcher.follow import find, index
from trainmaster.launcher.record import Event
from trainmaster.report import recorded
from trainmaster.report.attribution import Attribution
from trainmaster.report.ledger import Ledger
from trainmaster.report.phases import Assumptions, Span
from trainmaster.report.runs import Run, runs
from trainmaster.slurm import accounting
from trainmaster.slurm.accounting import NodeEvent, Question, Row

_PEEKED = 2000
_RECORD_SLACK_S = 300.0
"""Clocks of nodes and of slurmctld may differ; the batch script begins a little after the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What to ask, and where."""

    question: Question
    by: str = "auto"
    """gpus, nodes, or auto: GPUs if any job has some."""
    assumptions: Assumptions = field(default_factory=Assumptions)
    rows_file: Path | None = None
    """What `sacct` printed, instead of asking it."""
    events_file: Path | None = None
    """What `sacctmgr show event` printed."""
    journal: Path | None = None
    folder: Path | None = None
    """Where jobs were submitted to, for those that are not in this user's list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What was found."""

    ledger: Ledger
    spans: tuple[Span, ...] = ()
    """Of a single job."""
    notes: tuple[str, ...] = ()
    """What was not to be had, and what follows from that."""


def gather(sources: Sources) -> Gathered:
    """Read everything once, and add it up. Raises TrainmasterError when there is nothing to read."""
    question, notes = sources.question, Notes()
    events = node_events(sources, notes)
    attribution = Attribution(events, came_back(sources.journal, question.since_s, notes))
    rows: Iterator[Row] = iter(())
    first: list[Row] = []
    try:
        rows = attempt_rows(sources)
        first = list(islice(rows, _PEEKED))
    except SlurmError as error:
        if not question.jobs:
            raise
        notes.add(f"no accounting, so only the job's own record counts: {error.message}")
    by = sources.by
    if by == "auto":
        by = "gpus" if any(row.gpus for row in first) else "nodes"
    records = Records(sources.folder)
    since_s, until_s = question.since_s, question.until_s
    if question.jobs:
        kept = [*first, *rows]
        return _single(sources, kept, attribution, records, by, notes)
    ledger = Ledger(since_s * 1000, until_s * 1000, by, sources.assumptions, attribution)
    for run in runs(chain(first, rows)):
        found = records.of(run)
        if found is None:
            ledger.add(run)
        else:
            _add_recorded(ledger, run, found, sources, until_s, by)
    if not ledger.runs:
        notes.add("accounting has no job in this time; sacct shows an ordinary user only their own")
    return Gathered(ledger=ledger, notes=notes.all())


def _add_recorded(
    ledger: Ledger, run: Run, events: tuple[Event, ...], sources: Sources, until_s: int, by: str
) -> recorded.Recorded:
    told = recorded.spans(events, run, sources.assumptions, until_s=until_s, by=by, weight=0)
    ledger.add_spans(run, told.spans, told.causes, recorded=True)
    return told


def _single(
    sources: Sources, rows: list[Row], attribution: Attribution, records: "Records", by: str, notes: "Notes"
) -> Gathered:
    """One job, or the tasks of one array: its own life is the time that is reported."""
    from trainmaster.report.timeline import begin_ms, spans

    until_s = sources.question.until_s
    found = sorted(runs(rows), key=lambda run: run[0].job_id)
    lives: list[tuple[Run, tuple[Span, ...], list[str], bool]] = []
    for run in found:
        events = records.of(run)
        if events is not None:
            told = recorded.spans(events, run, sources.assumptions, until_s=until_s, by=by, weight=0)
            lives.append((run, told.spans, list(told.causes), True))
            if told.assumed:
                notes.add(f"{told.assumed} interruption(s) of which the record does not tell what was saved")
        else:
            laid, causes = spans(run, attribution, sources.assumptions, until_s=until_s, by=by)
            lives.append((run, tuple(laid), causes, False))
    if not lives:
        lives = [_from_record_alone(sources, records, until_s)]
    begins = [one[1][0].begin_ms if one[1] else begin_ms(one[0], until_s) for one in lives]
    ends = [one[1][-1].end_ms for one in lives if one[1]]
    ledger = Ledger(min(begins), max([*ends, min(begins) + 1000]), by, sources.assumptions, attribution)
    for run, laid_spans, causes, own in lives:
        ledger.add_spans(run, laid_spans, causes, recorded=own)
    return Gathered(ledger=ledger, spans=lives[0][1] if len(lives) == 1 else (), notes=notes.all())


def _from_record_alone(
    sources: Sources, records: "Records", until_s: int
) -> tuple[Run, tuple[Span, ...], list[str], bool]:
    job = sources.question.jobs[0]
    events = records.of_job(job)
    if not events or not recorded.usable(events):
        raise UsageError(
            f"nothing is known of job {job}",
            hint="accounting (sacct -D) does not have it, nor has a record; `--folder` names where that is",
        )
    width = max(1, *(len(event.nodes) for event in events))
    told = recorded.spans(events, (), sources.assumptions, until_s=until_s, by="nodes", weight=width)
    started = next(event for event in events if event.state == "STARTING")
    whole = Row(
        job_id=0,
        shown=job,
        user="",
        partition="",
        state="",
        submit_s=int(events[0].epoch_s),
        eligible_s=int(events[0].epoch_s),
        start_s=int(started.epoch_s),
        end_s=told.spans[-1].end_ms // 1000 if told.spans else until_s,
        suspended_s=0,
        nodes=width,
        gpus=0,
        node_list="",
    )
    return (whole,), told.spans, list(told.causes), True


def attempt_rows(sources: Sources) -> Iterator[Row]:
    """Rows out of the file, or out of slurmdbd."""
    question = sources.question
    if sources.rows_file is None:
        return accounting.attempts(question)
    return (row for row in accounting.rows(_lines(sources.rows_file)) if question.wants(row))


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            yield from stream
    except OSError as error:
        raise UsageError(f"could not read {path}: {error.strerror or error}") from None


class Notes:
    """Remarks about what was not to be had."""

    def __init__(self) -> None:
        self._all: dict[str, None] = {}

    def add(self, text: str) -> None:
        """Keep a remark, once."""
        self._all[text] = None

    def all(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(self._all)


def node_events(sources: Sources, notes: "Notes | None" = None) -> tuple[NodeEvent, ...]:
    """When which nodes were not to be had; none, and a note, where nobody tells."""
    question = sources.question
    if sources.events_file is not None:
        return accounting.parse_events(_lines(sources.events_file))
    if sources.rows_file is not None:
        if notes is not None:
            notes.add("no node events (--events-file): failures are told from Slurm's own states alone")
        return ()
    try:
        return accounting.node_events(max(1, question.since_s - 86400), question.until_s)
    except SlurmError as error:
        if notes is not None:
            notes.add(f"no node events: {error.message.splitlines()[0]}")
        return ()


def came_back(journal: Path | None, since_s: int, notes: Notes) -> Mapping[int, list[tuple[float, str]]]:
    """By job, when the controller saw it come back, and why; nothing where there is no journal."""
    if journal is None or not journal.exists():
        return {}
    told: dict[int, list[tuple[float, str]]] = defaultdict(list)
    try:
        opened = Journal(journal, read_only=True)
    except ControllerError as error:
        notes.add(f"without the controller's memory: {error.message}")
        return {}
    try:
        for event in opened.told("job", float(since_s)):
            number = event.subject.partition(":")[2]
            if number.isdecimal() and event.what.startswith("came back: "):
                told[int(number)].append((event.at, event.what.removeprefix("came back: ")))
    finally:
        opened.close()
    return told


def fleet_events(since_s: int, until_s: int, file: Path | None) -> tuple[NodeEvent, ...]:
    """Node events of a time and of 28 days before its end, which lemons are judged by. Raises SlurmError."""
    if file is not None:
        return accounting.parse_events(_lines(file))
    return accounting.node_events(max(1, min(since_s, until_s - 28 * 86400)), until_s)


def verdicts(journal: Path, notes: Notes) -> list[dict[str, Any]] | None:
    """What the controller thinks of nodes that it has blamed; None, and a note, where it has no journal."""
    if not journal.exists():
        notes.add(f"no controller's memory ({journal}): lemons only by the rule of three times out in 28 days")
        return None
    opened = Journal(journal, read_only=True)
    try:
        memory = opened.load() or Memory()
    finally:
        opened.close()
    return [asdict(one) for one in lemons.verdicts(memory, Policy(), time.time())]


class Records:
    """Jobs' own records, found by this user's list of submissions and in one folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder.expanduser() if folder is not None else None
        self._entries: dict[int, Path] = {}
        for entry in index.newest_first(index.path()):
            if entry.asked_here:
                self._entries.setdefault(entry.job_id, Path(entry.run_dir))

    def of(self, run: Run) -> tuple[Event, ...] | None:
        """The record of a run; None when there is none, or it is of another job that had its number."""
        if not self._entries and self._folder is None:
            return None
        number, _, task = run[0].shown.partition("_")
        if not number.isdecimal():
            return None
        run_dir = self._run_dir(int(number))
        if run_dir is None:
            return None
        events = record.read(run_dir / task if task else run_dir)
        if not recorded.usable(events):
            return None
        submit_s = run[0].submit_s or run[0].start_s or 0
        end_s = run[-1].end_s or time.time()
        near = submit_s - _RECORD_SLACK_S <= events[0].epoch_s <= end_s + _RECORD_SLACK_S
        return events if near else None

    def of_job(self, job: str) -> tuple[Event, ...]:
        """The record of a job that accounting does not have."""
        try:
            return record.read(find.find(job, self._folder).run_dir)
        except TrainmasterError:
            return ()

    def _run_dir(self, number: int) -> Path | None:
        if self._folder is not None and (self._folder / str(number)).is_dir():
            return self._folder / str(number)
        return self._entries.get(number)
