"""One node's part of a validation: `node.py FOLDER checks|torch|mpi`, one process a node, started by srun.

- checks: the node's own checks, one after another, told in FOLDER;
- torch, mpi: a tournament by these means, then an all-reduce of all together, told in FOLDER/torch or FOLDER/mpi.

Standard library only, Python 3.9, but for torch or mpi4py where they are used: then the task's Python has to have them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    # Started as a file: nothing of ours is on the path yet, and what lies beside this file shall not be.
    sys.path[:] = [str(Path(__file__).absolute().parents[3]), *sys.path[1:]]

from trainmaster.health import figures, node, registry
from trainmaster.health.check_pass import Pass
from trainmaster.health.deep import told as reports
from trainmaster.health.deep.task import Task, node_name, place_of, read
from trainmaster.health.deep.told import Told

MARGIN_S = 10.0
"""Before the limit, by when a node's own checks have to be through or are told as hung."""


def check(task: Task, name: str, folder: str) -> Told:
    """The node's own checks; what it is at is told before each that loads the hardware."""
    told = Told(node=name, python=sys.version.split()[0])

    def begin(source: str) -> None:
        nonlocal told
        told = told._replace(doing=source)
        reports.write(folder, told)

    defaults = node.Options()
    options = defaults._replace(
        root=place_of(task.root, name),
        profile=task.profile or defaults.profile,
        only=task.only,
        skip=task.skip,
        set=task.set,
        budget_s=task.limit_s - MARGIN_S,
        forget=True,
    )
    reports.write(folder, told)
    result = node.run(options, begin)
    found, _ = node.read_profile(options.root + options.profile)
    measured = figures_of(result)
    known = [figure for one in measured.values() for figure in figures.named(found, one)]
    thresholds = {key: value for key, value in found.table("thresholds").items() if isinstance(value, (int, float))}
    return told._replace(
        doing=reports.OVER,
        findings=result.decision.findings,
        figures=measured,
        named=tuple(known),
        modes=dict(found.table("modes")),
        thresholds=thresholds,
    )


def figures_of(result: Pass) -> dict[str, dict[str, float]]:
    """By check, what can be compared with other nodes."""
    found = {}
    for one in registry.every():
        readings = [result.readings.get(source.name) for source in one.sources]
        values = [reading.value for reading in readings if reading is not None and reading.state == "ok"]
        if one.compare is not None and len(values) == len(one.sources):
            try:
                found[one.id] = one.compare.figures(*values)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # its judgement has said so
    return found


def meet(task: Task, means_name: str, told: Told, folder: str) -> Told:
    """The tournament, as far as its means are there; what keeps it from taking place is a note."""
    from trainmaster.health.deep import pairs, tournament

    began_s = time.monotonic()
    if means_name == "torch" and (interface := _interface_of(task.addresses[told.node])):
        # Gloo would otherwise go by the host's name, which may mean another network.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        means = pairs.means_of(means_name, folder=Path(folder), node=told.node, addresses=task.addresses)
    except (ImportError, RuntimeError, OSError) as error:
        return told._replace(doing=reports.OVER, note=f"no tournament by {means_name}: {_words(error)}")
    if means is None:
        return told._replace(doing=reports.OVER)
    times: dict[str, float | None] = {}

    def tell(rounds: int) -> None:
        reports.write(folder, told._replace(pairs=times, rounds=rounds, means=means.name))

    note, group_s = "", None
    played = tournament.Played(rounds=0)
    try:
        played = tournament.play(
            told.node, means, times, pair_s=task.pair_s, limit_s=task.limit_s, began_s=began_s, tell=tell
        )
        note = played.note
        tell(played.rounds)
        if played.nodes:
            if None not in times.values():
                group_s = pairs.time_pair(means.together(patience_s=task.limit_s / 6), pair_s=task.pair_s)
            means.close()
    except (RuntimeError, OSError) as error:
        note = _words(error)
    return told._replace(
        doing=reports.OVER,
        pairs=times,
        rounds=played.rounds,
        means=means.name,
        group_s=group_s,
        group_nodes=len(played.nodes),
        note=note,
    )


def _words(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _interface_of(address: str) -> str:
    """The network interface with an address, as the kernel's table of local routes has it; empty when it has none."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                # SIOCGIFADDR of <linux/sockios.h>.
                raw = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no address
            if socket.inet_ntoa(raw[20:24]) == address:
                return name
    return ""


def main(argv: list[str]) -> int:
    """Read the task, do one part of it, tell."""
    folder, part = argv
    into = folder if part == "checks" else f"{folder}/{part}"
    task = read(into)
    # The signal's default action ends this process wherever it is stuck.
    signal.setitimer(signal.ITIMER_REAL, task.limit_s)
    name = node_name()
    if part == "checks":
        reports.write(folder, check(task, name, folder))
        return 0
    found = Told(node=name, doing=reports.PAIRS)
    reports.write(into, found)
    reports.write(into, meet(task, part, found, into))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
