"""Slows a node down without root: of every tenth of a second its processes run for a part and stand still for the rest.

`python -m trainmaster.lab.duty_cycle LAB_FOLDER NODE SHARE`, until SIGTERM, which lets all of them go on.
"""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trainmaster.lab import processes
from trainmaster.lab.processes import Process

PERIOD_S = 0.1
_LOOK_EVERY_S = 1.0


def spans(share: float, *, period_s: float = PERIOD_S) -> tuple[float, float]:
    """How long processes run and how long they stand still in one period.

    >>> spans(0.5)
    (0.05, 0.05)
    """
    run_s = min(max(share, 0.05), 0.95) * period_s
    return run_s, period_s - run_s


def _all(members: Sequence[Process], number: signal.Signals) -> None:
    for process in members:
        processes.send(process, number)


def main(argv: list[str]) -> int:
    """Stop and continue, until told to end."""
    folder, node, share = Path(argv[0]), argv[1], float(argv[2])
    over: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: over.append(got))
    run_s, stand_s = spans(share)
    members: tuple[Process, ...] = ()
    looked_s = float("-inf")
    while not over:
        if time.monotonic() - looked_s > _LOOK_EVERY_S:
            members, looked_s = processes.members((node,), folder=folder, conf=folder / "slurm.conf"), time.monotonic()
        _all(members, signal.SIGSTOP)
        time.sleep(stand_s)
        _all(members, signal.SIGCONT)
        time.sleep(run_s)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
