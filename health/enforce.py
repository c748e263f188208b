"""Carries the ledger's steps out: asks slurmctld, drains, resumes. The one place in health/ that runs a Slurm command.

Each command is a child with a deadline, as every probe: at a node's start slurmctld may not answer for minutes, and
slurmd would wait for us.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from trainmaster.health import kept, locks, registry, runner
from trainmaster.health import ledger as ledgers
from trainmaster.health.check import Completed, Place, Source, SourceFault
from trainmaster.health.ledger import Ledger, Step
from trainmaster.health.policy import Decision
from trainmaster.health.record import Any

FILE = "ledger.json"
PATIENCE_S = 8.0
LOCK_S = 5.0
"""How long another hook of this node is waited for; a prolog must not wait for ever."""
NOTHING = "nothing to do"


def enforce(decision: Decision, *, folder: str, node: str, boot_id: str, dry_run: bool = False) -> tuple[str, Ledger]:
    """Do what the pass asks for. Returns what was done, in words, and the ledger.

    Args:
        decision: of the pass.
        folder: where the ledger lies, beside the state.
        node: as Slurm calls it.
        boot_id: of this boot.
        dry_run: ask slurmctld, change nothing, and say what would be done.
    """
    path = f"{folder}/{FILE}"
    old = _read(path)
    step = ledgers.wanted(old, decision, boot_id, registry.rests())
    if step.kind == "nothing" and step.ledger == old:
        return NOTHING, old
    with locks.Lock(f"{folder}/{FILE}.lock", LOCK_S) as held:
        if not held:
            return "left to another hook, which is asking slurmctld", old
        # A prolog and a health check at once: what the other has done meanwhile is not done again.
        old = _read(path)
        step = ledgers.wanted(old, decision, boot_id, registry.rests())
        said, after = NOTHING, step.ledger
        if step.kind != "nothing":
            said, after = _carry_out(step, node, dry_run)
        if after != old and not dry_run:
            # When that fails the drain stands in Slurm with our mark, which is the truth anyway.
            kept.replace(path, ledgers.encode(after))
    return said, after


def stands(folder: str, node: str) -> str:
    """The reason of our drain of this node, if it stands in the ledger and in Slurm; else nothing.

    A job's prolog asks. Slurm is asked only when the ledger names a drain, since an admin may have resumed the node by
    hand; when it does not answer, nothing stands, and no job is refused.
    """
    ledger = _read(f"{folder}/{FILE}")
    if not ledger.reason:
        return ""

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        shown = _succeeded((yield ["scontrol", "--oneliner", "show", "node", node]))
        view = ledgers.view_of(shown, "", node=node, now_s=time.time())
        return view is not None and view.drained and view.reason == ledger.reason

    reading = _ask_slurm(ask)
    return ledger.reason if reading.state == "ok" and reading.value is True else ""


def _ask_slurm(ask: Callable[[Place], Generator[list[str], Completed, Any]]) -> runner.Reading:
    source = Source(name="slurm", about="scontrol", ask=ask, deadline_s=PATIENCE_S)
    return runner.read_all([source], lambda source: Place(), budget_s=PATIENCE_S)["slurm"]


def _read(path: str) -> Ledger:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return ledgers.decode(stream.read())
    except OSError:
        return Ledger()


def _carry_out(step: Step, node: str, dry_run: bool) -> tuple[str, Ledger]:
    outcome: dict[str, Any] = {}

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        shown = _succeeded((yield ["scontrol", "--oneliner", "show", "node", node]))
        reasons = yield ["sinfo", "--noheader", "--Node", "--states=drain", "--format=%N|%H|%E"]
        view = ledgers.view_of(shown, _with_seconds(reasons.out), node=node, now_s=time.time())
        if view is None:
            raise SourceFault(f"slurmctld does not know the node {node}")
        allowed, outcome["ledger"] = ledgers.permitted(step, view)
        if not allowed:
            return outcome["ledger"].note or ("no longer ours" if step.kind == "resume" else NOTHING)
        if dry_run:
            return f"would {step.kind} {node}"
        change = ["State=RESUME"] if step.kind == "resume" else ["State=DRAIN", f"Reason={step.reason}"]
        _succeeded((yield ["scontrol", "update", f"NodeName={node}", *change]))
        return f"{step.kind} {node}"

    reading = _ask_slurm(ask)
    if reading.state == "ok":
        return str(reading.value), outcome["ledger"]
    return f"could not {step.kind} {node}: {reading.detail}", ledgers.unreachable(step, reading.detail)


def _succeeded(done: Completed) -> str:
    if done.code != 0:
        raise SourceFault(" ".join((done.err or done.out).split())[:160] or f"exit status {done.code}")
    return done.out


def _with_seconds(text: str) -> str:
    """The lines of sinfo with times as epoch seconds; it prints local time as 2026-11-23T10:00:00."""
    lines = []
    for line in text.splitlines():
        name, _, rest = line.partition("|")
        moment, _, reason = rest.partition("|")
        try:
            seconds = int(time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S")))
        except (ValueError, OverflowError):
            continue
        lines.append(f"{name}|{seconds}|{reason}")
    return "\n".join(lines)
