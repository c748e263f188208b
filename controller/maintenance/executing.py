"""Commands of trains: operations, inventories, checks. They run beside the ticks, each with its deadline.

A controller that is killed leaves them running: half a firmware update is worse than one that nobody waits for. The
next one waits for their end and then starts them anew, so they have to bear being done twice.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from trainmaster.controller import snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.maintenance.catalogue import Operation
from trainmaster.controller.maintenance.limits import MaintenancePolicy
from trainmaster.controller.maintenance.state import reservation_name

_OUTPUT_MAX = 8 << 20


def commands(act: Act, policy: MaintenancePolicy) -> tuple[tuple[str, ...], ...]:
    """What an act runs, one after the other as long as each ends with 0.

    >>> act = Act(kind=Kind.INSPECT, cause="", why="", nodes=("n1", "n2"))
    >>> commands(act, MaintenancePolicy(inventory=("facts", "--on={nodes}")))
    (('facts', '--on=n[1-2]'),)
    """
    if act.kind is Kind.INSPECT:
        return (_filled(policy.inventory, act),)
    if act.kind is Kind.CHECK:
        return (_filled(getattr(policy.checks, act.work), act),)
    assert policy.registry is not None, "no train moves without a catalogue"
    one = policy.registry.operations[act.work.partition("@")[0]]
    found = [_operation(one, act, policy)]
    if one.verify:
        found.append(_filled(one.verify, act, one))
    return tuple(found)


def timeout_s(act: Act, policy: MaintenancePolicy) -> float:
    """After so long it has failed."""
    if act.kind is Kind.INSPECT:
        return policy.inventory_s
    if act.kind is Kind.CHECK:
        return float(getattr(policy.checks, f"{act.work}_s"))
    assert policy.registry is not None, "no train moves without a catalogue"
    return policy.registry.operations[act.work.partition("@")[0]].timeout_s


def _operation(one: Operation, act: Act, policy: MaintenancePolicy) -> tuple[str, ...]:
    executor = one.executor
    if executor.kind == "command":
        return _filled(executor.argv, act, one)
    if executor.kind == "ansible":
        told = {"trainmaster_versions": dict(one.upgrades), "trainmaster_train": act.train} | executor.extra_vars
        hosts = ",".join(act.nodes)
        return ("ansible-playbook", "--limit", hosts, "--extra-vars", json.dumps(told), executor.playbook)
    assert executor.kind == "srun", "Slurm reboots nodes itself"
    reserved = (f"--reservation={reservation_name(act.train, act.car)}",) if policy.reserve else ()
    # --mem=0 asks for all of a node, and a script that runs beside jobs has to bear what is left: one CPU, 64 MiB.
    fixed = ("--ntasks-per-node=1", "--cpus-per-task=1", "--mem=64M", "--kill-on-bad-exit=1", "--job-name=tm-train")
    return (
        "srun",
        *reserved,
        f"--nodelist={snapshot.fold(act.nodes)}",
        f"--nodes={len(act.nodes)}",
        *fixed,
        executor.script,
    )


def _filled(words: Sequence[str], act: Act, one: Operation | None = None) -> tuple[str, ...]:
    """Words with their places filled in; never split or given to a shell."""
    values = {
        "{node}": act.nodes[0],
        "{nodes}": snapshot.fold(act.nodes),
        "{unit}": act.work.partition("@")[2],
        "{versions}": " ".join(f"{name}={version}" for name, version in (one.upgrades if one else {}).items()),
        "{train}": act.train,
    }
    filled = []
    for word in words:
        for name, value in values.items():
            word = word.replace(name, value)
        filled.append(word)
    return tuple(filled)


@dataclass(slots=True)
class _Running:
    act: Act
    child: subprocess.Popen[bytes]
    output: IO[bytes]
    rest: list[tuple[str, ...]]
    deadline: float
    timed_out: bool = False


class Executing:
    """Commands that are under way. `finished` tells of each once."""

    def __init__(self, policy: MaintenancePolicy) -> None:
        self._policy = policy
        self._running: dict[str, _Running] = {}
        self._ended: list[tuple[Act, bool, str]] = []

    def running(self, act: Act) -> bool:
        """Whether the command of an act is under way, or has ended and was not told of yet."""
        return act.id in self._running or any(one.id == act.id for one, _, _ in self._ended)

    def start(self, act: Act) -> int | None:
        """Start the command of an act; its process id, or None when there is no room, or it cannot be started."""
        if len(self._running) >= self._policy.at_once_max:
            return None
        first, *rest = commands(act, self._policy)
        deadline = time.monotonic() + timeout_s(act, self._policy)
        return self._start(act, first, list(rest), deadline)

    def _start(self, act: Act, words: tuple[str, ...], rest: list[tuple[str, ...]], deadline: float) -> int | None:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the command
        try:
            # A session of its own: at its deadline all that it has started goes with it.
            child = subprocess.Popen(
                list(words), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            output.close()
            self._ended.append((act, False, f"{words[0]} could not be started: {error.strerror or error}"))
            return None
        self._running[act.id] = _Running(act=act, child=child, output=output, rest=rest, deadline=deadline)
        return child.pid

    def finished(self) -> list[tuple[Act, bool, str]]:
        """What has ended since the last time: the act, whether it went well, and what it printed."""
        for one in list(self._running.values()):
            code = one.child.poll()
            if code is None and time.monotonic() > one.deadline and not one.timed_out:
                one.timed_out = True
                os.killpg(one.child.pid, signal.SIGKILL)
                code = one.child.wait()
            if code is None:
                continue
            del self._running[one.act.id]
            said = _text(one.output)
            if one.timed_out:
                self._ended.append((one.act, False, f"{said}\ndid not end in time"))
            elif code == 0 and one.rest:
                self._start(one.act, one.rest[0], one.rest[1:], one.deadline)
            elif code == 0:
                self._ended.append((one.act, True, said))
            else:
                self._ended.append((one.act, False, f"{said}\nexit code {code}{_last(said)}"))
        ended, self._ended = self._ended, []
        return ended


def _text(output: IO[bytes]) -> str:
    with output:
        output.seek(0)
        return output.read(_OUTPUT_MAX).decode(errors="replace")


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return f": {lines[-1][:140]}" if lines else ""
