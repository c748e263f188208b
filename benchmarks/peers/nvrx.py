"""(e) nvidia-resiliency-ext's `ft_launcher`, with the heartbeats that its users add to their script.

It is no dependency of ours: its modules go into build/peers/nvrx at the first use. 0.4.1 is the newest that installs
on Debian 12 (later wheels want a newer glibc); it needs no GPU to watch ranks, and complains that it finds none.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from peers.elastic_torchrun import OWN_STORE, RESTARTS, TUNED
from peers.work import PYTHON, RANKS, SPARES, Place, Work, address, header, port_base, slurm_place
from trainmaster.lab.cluster import Lab
from trainmaster.slurm.commands import Commands

WANTED = ("nvidia-resiliency-ext==0.4.1", "nvidia-ml-py", "defusedxml", "packaging", "psutil", "pyyaml")
LIBRARY = Path(__file__).resolve().parents[2] / "build" / "peers" / "nvrx"
TRAIN = Path(__file__).parent / "nvrx_train.py"
HEARTBEAT_TIMEOUT_S = 5
"""How long a rank may be silent. Its users set minutes; trainmaster learns its own limit, so this one is friendly."""


def install() -> None:
    """Fetch it, unless it is there. The package itself wants a deprecated one that makes torch warn at each import."""
    if (LIBRARY / "nvidia_resiliency_ext").is_dir():
        return
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(LIBRARY), *WANTED]
    subprocess.run(argv, check=True)


def script(work: Work, *, host: str, port: int) -> str:
    """The batch script: that of elastic torchrun, with its rendezvous as quick as torchrun's can be made."""
    train = shlex.join([str(TRAIN), *work.words])
    return header(work, "nvrx", RANKS + SPARES, "--no-kill", "--no-requeue") + (
        f"{OWN_STORE}"
        f"export PYTHONPATH={shlex.quote(str(LIBRARY))}\n"
        # Its per-node monitor listens on a socket in the temporary folder, which all nodes of a lab share.
        "srun --no-kill --kill-on-bad-exit=0 bash -c 'export TMPDIR=$(mktemp -d); exec "
        f"{shlex.quote(PYTHON)} -m nvidia_resiliency_ext.fault_tolerance.launcher --nnodes={RANKS}:{RANKS + SPARES} "
        f"--nproc-per-node=1 --max-restarts={RESTARTS} --rdzv-backend=c10d --rdzv-endpoint={host}:{port} "
        f"--rdzv-id=$SLURM_JOB_ID --rdzv-conf={TUNED}is_host=$((SLURM_NODEID == 0)) --local-addr={host} "
        f"--ft-rank-heartbeat-timeout={HEARTBEAT_TIMEOUT_S} --ft-initial-rank-heartbeat-timeout=60 "
        f"--ft-workload-check-interval=0.5 {train}'\n"
    )


def start(lab: Lab, work: Work) -> int:
    """Submit it; returns the job id."""
    install()
    return Commands(env=lab.env | {"HOME": os.environ.get("HOME", "/")}).submit(
        script(work, host=address(lab), port=port_base())
    )


def place(lab: Lab, work: Work, job_id: int) -> Place:
    """The rank and node to hit."""
    return slurm_place(lab, job_id)
