"""Many processes of one user that all wait for one job: RUN_DIR JOB_ID PROCESSES SECONDS EVERY_S."""

import os
import sys
from pathlib import Path

from trainmaster.launcher.follow.queue import Queue
from trainmaster.launcher.follow.queue_cache import cache_of
from trainmaster.launcher.follow.watch import Watch
from trainmaster.slurm.commands import Commands


def wait(run_dir: Path, job_id: str, seconds: float, every_s: float) -> None:
    queue = Queue(Commands(), cache=cache_of(os.environ["SLURM_CONF"]), every_s=every_s)
    Watch(run_dir, job_id, queue).wait(timeout_s=seconds)
    assert queue.trouble is None, queue.trouble


def main() -> None:
    run_dir, job_id, processes, seconds, every_s = sys.argv[1:]
    children = []
    for _ in range(int(processes)):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                wait(Path(run_dir), job_id, float(seconds), float(every_s))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
