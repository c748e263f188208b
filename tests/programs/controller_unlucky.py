"""The controller, killed -9 before the next step that it was not killed before yet, under a clock that is set wrong.

    controller_unlucky.py JOURNAL POLICY STEPS CLOCK_OFF_S

STEPS is a file of the steps before which it died already; it adds a line and dies. When there is no new step any more
it simply works. CLOCK_OFF_S is added to the wall clock, and a second time after a while.
"""

import logging
import os
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from trainmaster.clock import SystemClock
from trainmaster.controller import policy
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.slurm.commands import Commands


class SetWrong(SystemClock):
    def __init__(self, off_s: float) -> None:
        self.off_s, self.reads = off_s, 0

    def now(self) -> datetime:
        self.reads += 1
        return super().now() + timedelta(seconds=self.off_s * (2 if self.reads > 6 else 1))


def main(journal: str, policy_file: str, steps_file: str, off_s: str) -> None:
    steps = Path(steps_file)
    died = set(steps.read_text().splitlines()) if steps.exists() else set()

    def before_step(step: str) -> None:
        if step not in died:
            with steps.open("a") as out:
                out.write(f"{step}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    wanted = policy.load(Path(policy_file))
    one = Controller(
        Commands(timeout_s=10.0), Journal(Path(journal)), wanted, SetWrong(float(off_s)), before_step=before_step
    )
    one.start()
    one.run(ends=lambda: False, wait=time.sleep)


main(*sys.argv[1:])
