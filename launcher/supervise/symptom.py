"""How a cycle ended, and what that is called: from the ends of its ranks to a cause. Pure; standard library only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainmaster.launcher.exit_rules import (
    EXIT_EXCLUDE_NODE,
    EXIT_NEVER_REQUEUE,
    EXIT_REQUEUE,
    TEXT_SEARCHED_BYTES,
    Rule,
)
from trainmaster.launcher.search import Search
from trainmaster.launcher.supervise.hang import Hang
from trainmaster.launcher.supervise.values import Divergence

PORTS_TAKEN_MAX = 5

# How the peers of a dead rank fail. Such a traceback is the echo, not the shot.
_ECHO = re.compile(
    r"Connection reset by peer|Connection closed by peer|Connection refused|Broken pipe|"
    r"NCCL (remote|communicator|operation)|ncclRemoteError|ncclSystemError|DistStoreError|"
    r"wait timeout after|Timed out waiting|recvValue failed|Socket Timeout|Software caused connection abort"
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_PORT_TAKEN = re.compile(r"EADDRINUSE|Address already in use|address already in use")
# What no program does to itself: the words of CUDA and of file systems about a broken machine.
_NODE_FAULT = re.compile(
    r"uncorrectable ECC error|CUDA-capable device\(s\) is/are busy or unavailable|GPU is lost|fallen off the bus|"
    r"Unable to determine the device handle|Stale file handle|Transport endpoint is not connected"
)
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExit:
    """How one rank ended."""

    rank: int
    node: str
    code: int
    """Exit code; -N after signal N, as subprocess has it."""
    epoch_s: float
    stopped: bool = False
    """We had told it to stop, so its way of ending says nothing."""
    raised: bool = False
    """A submitted callable raised an exception."""
    oom: bool = False
    """The kernel killed it, or a helper of it, for want of memory; its counters say so."""
    text: str = ""
    """Its traceback, or the end of what it wrote to stderr."""
    said: str = ""
    """The end of what it wrote to stdout, where a rule looks for words."""

    @property
    def failed(self) -> bool:
        """It ended badly by itself."""
        return self.code != 0 and not self.stopped

    @property
    def is_exception(self) -> bool:
        """A Python exception ended it: that is the program's doing as likely as the machine's."""
        return self.raised or _TRACEBACK in self.text

    def __str__(self) -> str:
        how = f"exit code {self.code}" if self.code >= 0 else f"signal {-self.code}"
        return f"rank {self.rank} on {self.node}, {how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a cycle ended."""

    world_size: int
    exits: tuple[RankExit, ...] = ()
    lost: dict[str, str] = field(default_factory=dict)
    """Nodes lost in this cycle -> node_death, node_silent or node_stuck."""
    ending: str | None = None
    """Why the whole job is ending (user, requeue, timeout, preemption …), when somebody asked for that."""
    advanced: bool = False
    """A step was reported that no earlier cycle had reached."""
    steps_known: bool = False
    """The program reports steps at all."""
    saved: bool = False
    """A checkpoint was published that is newer than all before."""
    saves_known: bool = False
    """The program tells when it publishes one."""
    uptime_s: float = 0.0
    hang: Hang | None = None
    """Ranks stopped moving; nothing else was wrong."""
    suspects: tuple[tuple[int, str], ...] = ()
    """Rank and node of those that held the others up."""
    diverged: Divergence | None = None
    """A reported value told that training has gone wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """What a cycle's end is called, and who is behind it."""

    cause: str
    failure: RankExit | None = None
    """The rank that failed first."""
    failures: tuple[RankExit, ...] = ()
    """All that ended badly by themselves, echoes of a broken connection last."""
    nodes: tuple[str, ...] = ()
    """Nodes that cannot be used any more, or asked to be left out."""


def failures_of(exits: Sequence[RankExit]) -> tuple[RankExit, ...]:
    """The ranks that ended badly by themselves: the earliest first, echoes of a broken connection last."""
    failed = [entry for entry in exits if entry.failed]
    return tuple(sorted(failed, key=lambda entry: (bool(_ECHO.search(entry.text)), entry.epoch_s)))


def cycle_is_over(outcome: Outcome) -> bool:
    """Whether anything happened that the other ranks cannot survive, or all ranks are done."""
    failed = any(entry.failed for entry in outcome.exits)
    return bool(outcome.lost) or failed or outcome.diverged is not None or all_done(outcome)


def all_done(outcome: Outcome) -> bool:
    """Whether every rank has ended well."""
    return sum(1 for entry in outcome.exits if entry.code == 0) == outcome.world_size


def symptom_of(outcome: Outcome, *, ports_taken: int = 0) -> Symptom:
    """What a bad end is called. `ports_taken`: how often in a row a port was taken; then it is a crash after all."""
    failures = failures_of(outcome.exits)
    failure = next(iter(failures), None)
    codes = {entry.code for entry in failures}
    left_out = tuple(entry.node for entry in failures if entry.code == EXIT_EXCLUDE_NODE)
    nodes = (*outcome.lost, *left_out)
    if outcome.ending is not None:
        # A rank that did what it was asked for has not failed.
        blamed = failure if failure is not None and failure.code != EXIT_REQUEUE else None
        return Symptom(cause=outcome.ending, failure=blamed, failures=failures, nodes=nodes)
    if EXIT_NEVER_REQUEUE in codes:
        return Symptom(cause="never_requeue", failure=failure, failures=failures, nodes=nodes)
    if EXIT_REQUEUE in codes:
        return Symptom(cause="requested", failures=failures, nodes=nodes)
    if outcome.lost:
        return Symptom(cause=next(iter(outcome.lost.values())), failures=failures, nodes=nodes)
    if left_out:
        return Symptom(cause="exclude_node", failure=failure, failures=failures, nodes=nodes)
    if failure is None and outcome.diverged is not None:
        return Symptom(cause="diverged")
    if failure is None and outcome.hang is not None:
        return Symptom(cause="hang", nodes=tuple(dict.fromkeys(node for _, node in outcome.suspects)))
    if failure is None:
        return Symptom(cause="node_failure")
    cause = _cause_of_crash(failure, steps_known=outcome.steps_known, ports_taken=ports_taken)
    return Symptom(
        cause=cause, failure=failure, failures=failures, nodes=(failure.node,) if cause == "node_fault" else ()
    )


def _cause_of_crash(failure: RankExit, *, steps_known: bool, ports_taken: int) -> str:
    if _DISK_FULL.search(failure.text):
        return "disk_full"
    if _PORT_TAKEN.search(failure.text) and ports_taken < PORTS_TAKEN_MAX:
        return "port_taken"
    if failure.raised and not steps_known:
        # A submitted callable is a future: what it raises is its result, as with submitit.
        return "program"
    if failure.oom:
        return "out_of_memory"
    return "node_fault" if failure.rank >= 0 and _NODE_FAULT.search(failure.text) else "rank_crash"


def fits(rule: Rule, symptom: Symptom, search: Search) -> tuple[bool, RankExit | None]:
    """Whether a rule holds, and for which rank, where its conditions are about one. `search`: looks for its text."""
    if rule.cause and symptom.cause not in rule.cause:
        return False, None
    if not (rule.code or rule.signal or rule.text):
        return True, None
    # A code is a program's deliberate word, whoever says it. Signals and last words count only of the first to fail:
    # those of its peers are echoes.
    candidates = symptom.failures if rule.code else symptom.failures[:1]
    found = next((entry for entry in candidates if _fits_rank(rule, entry, search)), None)
    return found is not None, found


def _fits_rank(rule: Rule, entry: RankExit, search: Search) -> bool:
    if rule.code and entry.code not in rule.code:
        return False
    if rule.signal and not any(-entry.code == number_of(name) for name in rule.signal):
        return False
    if not rule.text:
        return True
    return any(search.found(rule.text, said[-TEXT_SEARCHED_BYTES:]) for said in (entry.text, entry.said) if said)


def number_of(name: str) -> int:
    """The number of a signal's name; 0 for one that this system does not know.

    >>> number_of("SIGSEGV"), number_of("SIGRTMIN+1") > 32, number_of("SIGNO")
    (11, True, 0)
    """
    import signal

    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    known = {entry.name: int(entry) for entry in signal.Signals}
    if base not in known or (sign and not offset.isdecimal()):
        return 0
    return known[base] + (int(f"{sign}{offset}") if sign else 0)
