"""(b) submitit's `Checkpointable`, submitted by the script beside this file."""

import subprocess
import sys
from pathlib import Path

from peers.work import Place, Work, address, port_base, slurm_place
from trainmaster.errors import LabError
from trainmaster.lab import processes
from trainmaster.lab.cluster import Lab

SUBMIT = Path(__file__).parent / "submit_checkpointable.py"


def start(lab: Lab, work: Work) -> int:
    """Submit it, from a process of its own, since submitit takes the cluster from the environment."""
    argv = [sys.executable, str(SUBMIT), str(work.folder / "submitit"), address(lab), str(port_base()), *work.words]
    return int(subprocess.run(argv, env=lab.env, check=True, capture_output=True, text=True).stdout.split()[-1])


def place(lab: Lab, work: Work, job_id: int) -> Place:
    """The rank and node to hit."""
    return slurm_place(lab, job_id)


def pid_of_rank(lab: Lab, job_id: int, rank: int) -> int:
    """The process that runs a rank. submitit's ranks learn RANK only after they start, so srun's variable is asked."""
    for pid in processes.snapshot():
        environment = processes.environ(pid)
        if (environment.get("SLURM_CONF"), environment.get("SLURM_JOB_ID")) != (str(lab.conf), str(job_id)):
            continue
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if environment.get("SLURM_PROCID") == str(rank) and b"submitit.core._submit" in words:
            return pid
    raise LabError(f"no process of rank {rank} of job {job_id} was found")
