"""One process that waits for jobs, as a person's script does. `python client.py WHO FOLDER JOB_ID EVERY_S`

It says "ready" and waits until it is ended. With EVERY_S above 0 it submits one more held job that often, and waits for
all of them.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Any


def main(who: str, folder: Path, job_id: str, every_s: float) -> None:
    logging.getLogger("submitit").setLevel(logging.ERROR)
    executor: Any
    job: Any
    if who == "trainmaster":
        from trainmaster.launcher.executor import TrainmasterExecutor
        from trainmaster.launcher.job import TrainmasterJob
        from trainmaster.launcher.spec import JobSpec

        job = TrainmasterJob(folder, job_id)
        executor = TrainmasterExecutor(folder, JobSpec(name="nap", time=5, mem="1G", sbatch={"hold": True}))
    else:
        import submitit
        from submitit.slurm.slurm import SlurmJob

        job = SlurmJob(folder, job_id)
        executor = submitit.SlurmExecutor(folder=folder)
        executor.update_parameters(job_name="nap", time=5, mem="1G", additional_parameters={"hold": True})
    jobs = [job]
    print("ready", flush=True)
    if not every_s:
        job.wait()
        return
    submitted_s = time.monotonic()
    while True:
        for one in jobs:
            one.done()
        if time.monotonic() - submitted_s >= every_s:
            submitted_s += every_s
            jobs.append(executor.submit(time.sleep, 0))
        time.sleep(1.0)  # as submitit's wait() does


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
