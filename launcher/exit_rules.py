"""What a job does when its ranks end: rules in an order, of which the first that fits counts. Standard library only.

A rule is data: conditions, and what then. Reserved exit codes come first, then the person's own rules, then ours
(`DEFAULT`), which say what trainmaster does by itself. `supervise.decide` finds the rule and carries it out.
"""

import re
import shlex
import signal as signals
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from trainmaster.launcher.search import SEARCH_S, is_slow

EXIT_REQUEUE = 75
"""The rank wrote its checkpoint and asks for a requeue (sysexits' EX_TEMPFAIL)."""
EXIT_EXCLUDE_NODE = 85
"""The rank asks for a restart without its node."""
EXIT_NEVER_REQUEUE = 93
"""The rank asks never to be run again (as nvidia-resiliency-ext has it)."""
RESERVED_CODES = {
    0: "it is the good end",
    EXIT_REQUEUE: "it asks for a requeue",
    EXIT_EXCLUDE_NODE: "it asks for a restart without its node",
    EXIT_NEVER_REQUEUE: "it asks never to be run again",
}
TEXT_SEARCHED_BYTES = 8192
"""How much of a rank's last output a rule's `text` is looked for in."""


class Then(StrEnum):
    """What a rule has done."""

    SUCCEED = "succeed"
    RESTART = "restart"
    RESTART_WITHOUT_NODE = "restart without node"
    REQUEUE = "requeue"
    REQUEUE_WITHOUT_NODES = "requeue without nodes"
    FAIL = "fail"
    HOLD = "hold"
    """Put the job back into the queue, held there until somebody has looked at it and says `scontrol release`."""


class Kind(StrEnum):
    """The budgets; each cause of a restart or requeue is paid from one of them."""

    CRASH = "crash"
    NODE = "node failure"
    TIMEOUT = "time limit"
    REQUEUE = "requeue"
    FREE = "nothing"


@dataclass(frozen=True, slots=True)
class Cause:
    """What is known of a cause."""

    words: str
    kind: Kind
    ending: bool = False
    """The job is losing its allocation, so nothing can be restarted in it."""


CAUSES: Mapping[str, Cause] = {
    "rank_crash": Cause("a rank failed or was killed", Kind.CRASH),
    "out_of_memory": Cause("the kernel killed a rank for want of memory", Kind.CRASH),
    "program": Cause("a submitted function raised", Kind.CRASH),
    "hang": Cause("ranks stopped moving", Kind.CRASH),
    "diverged": Cause("a reported value became NaN or infinite, or jumped", Kind.CRASH),
    "node_fault": Cause("a rank's last words name its machine", Kind.NODE),
    "node_death": Cause("a node is gone", Kind.NODE),
    "node_silent": Cause("a node does not answer any more", Kind.NODE),
    "node_stuck": Cause("SIGKILL does not end the ranks of a node", Kind.NODE),
    "node_withdrawn": Cause("Slurm takes back a node that had joined the job", Kind.FREE),
    "exclude_node": Cause("a rank asked for a restart without its node", Kind.NODE),
    "supervisor_death": Cause("the batch step is dead, and Slurm ends the job for it", Kind.NODE, ending=True),
    "node_failure": Cause("Slurm ends the job because of a node", Kind.NODE, ending=True),
    "start": Cause("too few nodes could start", Kind.NODE),
    "not_ready": Cause("a role waited in vain for others", Kind.CRASH),
    "disk_full": Cause("the run folder's disk is full", Kind.CRASH),
    "port_taken": Cause("somebody took the rendezvous port", Kind.FREE),
    "timeout": Cause("the time limit", Kind.TIMEOUT, ending=True),
    "preemption": Cause("a job of higher priority", Kind.FREE, ending=True),
    "maintenance": Cause("maintenance of its nodes is near", Kind.FREE, ending=True),
    "requested": Cause("the program, or somebody who signalled it", Kind.REQUEUE, ending=True),
    "never_requeue": Cause("a rank asked never to be run again", Kind.CRASH),
}
"""Why a cycle ends badly: the names that the record uses and that a rule's `cause` may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Conditions that must all hold, and what then. A condition with several values holds for any of them.

    >>> str(Rule(code=(3, 4), text="out of data", then="succeed"))
    "code=3,4 text='out of data' => succeed"
    """

    code: tuple[int, ...] = ()
    """Exit codes of any rank that ended by itself."""
    signal: tuple[str, ...] = ()
    """Signals ("SIGSEGV") that killed the rank that failed first."""
    text: str = ""
    """A regular expression found in the last output of the rank that failed first, or that has the code."""
    cause: tuple[str, ...] = ()
    """Names of `CAUSES`."""
    then: str = Then.FAIL
    why: str = ""
    """One clause for people."""

    def __str__(self) -> str:
        words = [f"code={','.join(map(str, self.code))}"] if self.code else []
        words += [f"signal={','.join(self.signal)}"] if self.signal else []
        words += [f"text={shlex.quote(self.text)}"] if self.text else []
        words += [f"cause={','.join(self.cause)}"] if self.cause else []
        return f"{' '.join(words)} => {self.then}"

    @property
    def conditions(self) -> tuple[object, ...]:
        """What has to hold."""
        return self.code, self.signal, self.text, self.cause


RESERVED: tuple[Rule, ...] = (
    Rule(code=(EXIT_NEVER_REQUEUE,), then=Then.FAIL, why="the program asks never to be run again"),
    Rule(
        cause=("exclude_node",),
        then=Then.RESTART_WITHOUT_NODE,
        why=f"a rank ended with {EXIT_EXCLUDE_NODE}",
    ),
    Rule(cause=("requested",), then=Then.REQUEUE, why=f"a rank ended with {EXIT_REQUEUE}: the checkpoint is written"),
)
"""What the reserved codes mean. No rule of a person comes before these."""

DEFAULT: tuple[Rule, ...] = (
    Rule(
        code=(EXIT_REQUEUE,),
        cause=("timeout", "preemption", "maintenance", "node_failure"),
        then=Then.REQUEUE,
        why="the checkpoint is written",
    ),
    Rule(cause=("preemption", "maintenance", "node_failure"), then=Then.REQUEUE, why="it is nobody's fault"),
    Rule(cause=("timeout",), then=Then.FAIL, why="no checkpoint was written, so it would begin again"),
    Rule(cause=("supervisor_death",), then=Then.FAIL),
    Rule(
        cause=("node_death", "node_silent", "node_stuck", "node_fault", "node_withdrawn"),
        then=Then.RESTART_WITHOUT_NODE,
        why="a spare takes its ranks; if there is none, a requeue without it",
    ),
    Rule(cause=("hang",), then=Then.RESTART),
    Rule(cause=("diverged",), then=Then.FAIL, why="it would burn the queue"),
    Rule(cause=("start",), then=Then.REQUEUE_WITHOUT_NODES),
    Rule(cause=("not_ready",), then=Then.FAIL),
    Rule(cause=("program",), then=Then.FAIL, why="what a function raises is its result"),
    Rule(cause=("disk_full",), then=Then.FAIL, why="the next cycle would only fill what is left"),
    Rule(cause=("port_taken",), then=Then.RESTART, why="the next port is another"),
    Rule(cause=("out_of_memory", "rank_crash"), then=Then.RESTART),
)
"""What trainmaster does by itself. Every cause has a rule here."""


def in_order(own: Sequence[Rule]) -> tuple[Rule, ...]:
    """All rules as they are looked at, with the person's own among ours."""
    return (*RESERVED, *own, *DEFAULT)


# --- from what a person wrote -----------------------------------------------------------------------------------------

_KEYS = tuple(entry.name for entry in fields(Rule))


def from_value(value: object, number: int = 1) -> tuple[Rule | None, tuple[str, ...]]:
    """A Rule from a table of a file, from text, or as it is; and what is wrong, each named with the rule's number.

    >>> from_value({"code": 3, "then": "hold"})[0]
    Rule(code=(3,), signal=(), text='', cause=(), then='hold', why='')
    >>> from_value("code=3 cause=hang => restart without node")[0].then
    'restart without node'
    """
    at = f"exit_rules[{number}]"
    if isinstance(value, Rule):
        return value, ()
    if isinstance(value, str):
        value, wrong = _table_of(value, at)
        if wrong:
            return None, wrong
    if not isinstance(value, Mapping):
        return None, (f"{at} must be a table such as {{code = 3, then = 'hold'}}, it is {value!r}",)
    faults = []
    for key in value:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            faults.append(f"{at}: there is no key {key!r}" + (f"; {near[0]!r} may be meant" if near else ""))
    if "then" not in value:
        faults.append(f"{at}: `then` is missing; it is one of: {_thens()}")
    known: dict[str, Any] = {key: value[key] for key in _KEYS if key in value}
    for key in ("code", "signal", "cause"):
        if key in known:
            known[key] = tuple(known[key]) if isinstance(known[key], list | tuple) else (known[key],)
    if isinstance(known.get("then"), str):
        known["then"] = known["then"].replace("_", " ").replace("-", " ").strip().lower()
    if "signal" in known:
        known["signal"] = tuple(_signal_name(one) for one in known["signal"])
    return (None if faults else Rule(**known)), tuple(faults)


def _table_of(text: str, at: str) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """`code=3,4 text='no data' => hold` as a table."""
    left, arrow, then = text.rpartition("=>")
    if not arrow:
        return None, (f"{at}: {text!r} has no `=>`; write for example: code=3,4 => hold",)
    table: dict[str, Any] = {"then": then.strip()}
    try:
        words = shlex.split(left)
    except ValueError as error:
        return None, (f"{at}: {text!r} cannot be read: {error}",)
    faults = []
    for word in words:
        key, mark, value = word.partition("=")
        if not mark:
            faults.append(f"{at}: {word!r} is no condition; write KEY=VALUE, and quote a value that has blanks")
        elif key == "code":
            table[key] = [int(one) if re.fullmatch(r"-?\d+", one) else one for one in value.split(",")]
        elif key in ("signal", "cause"):
            table[key] = value.split(",")
        else:
            table[key] = value
    return table, tuple(faults)


def _signal_name(value: object) -> str:
    """SIGSEGV, from "SIGSEGV", "SEGV" or 11; what is none of these as it is."""
    if isinstance(value, int | str) and str(value).isdecimal():
        try:
            return signals.Signals(int(value)).name
        except ValueError:
            return str(value)
    name = str(value).upper()
    return name if name.startswith("SIG") else f"SIG{name}"


def _thens() -> str:
    return ", ".join(Then)


def read(rules: Sequence[Rule | str]) -> tuple[Rule, ...]:
    """Rules from rules and texts; those that cannot be read are left out (`faults` names them)."""
    return tuple(rule for rule in (from_value(one)[0] for one in rules) if rule is not None)


def faults(rules: object) -> Iterator[str]:
    """Everything that is wrong with a person's rules, one sentence each."""
    if isinstance(rules, str) or not isinstance(rules, tuple | list):
        yield f"exit_rules must be a list of rules, it is {rules!r}"
        return
    seen: dict[tuple[object, ...], int] = {}
    for number, value in enumerate(rules, 1):
        at = f"exit_rules[{number}]"
        rule, unread = from_value(value, number)
        yield from unread
        if rule is None:
            continue
        wrong = [*_condition_faults(rule), *_then_faults(rule)]
        if not wrong and rule.conditions in seen:
            wrong = [f"it never counts, since exit_rules[{seen[rule.conditions]}] has the same conditions"]
        seen.setdefault(rule.conditions, number)
        for fault in wrong:
            yield f"{at} ({rule}): {fault}"


def _condition_faults(rule: Rule) -> Iterator[str]:
    if not any(rule.conditions):
        yield "it has no condition; give a code, a signal, a text or a cause"
    if rule.code and rule.signal:
        yield "a rank ends with a code or by a signal, never with both; write two rules"
    for code in rule.code:
        if not isinstance(code, int) or isinstance(code, bool) or not 0 <= code <= 255:
            yield f"an exit code is a number from 1 to 255, not {code!r}"
        elif code in RESERVED_CODES:
            yield f"code {code} is reserved: {RESERVED_CODES[code]}"
    known = {entry.name for entry in signals.Signals}
    for name in rule.signal:
        if name not in known and not re.fullmatch(r"SIGRTM(IN|AX)([+-]\d+)?", name):
            near = get_close_matches(name, known, n=1)
            yield f"there is no signal {name}" + (f"; {near[0]} may be meant" if near else "")
    if not isinstance(rule.text, str):
        yield f"text must be a regular expression, it is {rule.text!r}"
    elif rule.text:
        try:
            if re.compile(rule.text).search(""):
                yield f"text={rule.text!r} is found in everything, also where nothing was written"
            elif is_slow(rule.text):
                yield (
                    f"text={rule.text!r} takes more than {SEARCH_S:g} s on a few kilobytes that do not have it; "
                    "repeat nothing that repeats itself, as (a+)+ does, and use few .*"
                )
        except re.error as error:
            yield f"text={rule.text!r} is no regular expression: {error}"
    for cause in rule.cause:
        if cause not in CAUSES or cause in _RESERVED_CAUSES:
            near = get_close_matches(str(cause), CAUSES, n=1)
            valid = ", ".join(name for name in CAUSES if name not in _RESERVED_CAUSES)
            told = f"there is no cause {cause!r}" if cause not in CAUSES else f"cause {cause!r} belongs to a code"
            yield told + (f"; {near[0]!r} may be meant" if near and cause not in CAUSES else "") + f" (causes: {valid})"


_RESERVED_CAUSES = frozenset({"exclude_node", "requested", "never_requeue"})


def _then_faults(rule: Rule) -> Iterator[str]:
    if rule.then not in set(Then):
        near = get_close_matches(str(rule.then), list(Then), n=1)
        yield (
            f"`then` cannot be {rule.then!r}" + (f"; {str(near[0])!r} may be meant" if near else "") + f" ({_thens()})"
        )
        return
    causes = [CAUSES[cause] for cause in rule.cause if cause in CAUSES]
    if rule.then in (Then.RESTART, Then.RESTART_WITHOUT_NODE) and causes and all(cause.ending for cause in causes):
        yield f"nothing can be restarted in place when the cause is {' or '.join(rule.cause)}; write `requeue`"
