"""(a) What people write first: `sbatch --requeue`, srun, one torchrun a node, and a requeue when it fails."""

import shlex

from peers.work import PYTHON, RANKS, Place, Work, address, header, port_base, slurm_place
from trainmaster.lab.cluster import Lab
from trainmaster.slurm.commands import Commands


def script(work: Work, *, host: str, port: int) -> str:
    """The batch script.

    A crash ends the step at once (--kill-on-bad-exit) and the script asks for a requeue itself; for a node that is
    lost Slurm does (--requeue). The port changes with every restart, lest the old one is still held.
    """
    train = shlex.join(work.words)
    return header(work, "plain-sbatch", RANKS, "--requeue") + (
        f"port=$(({port} + SLURM_RESTART_COUNT % 64))\n"
        f"export MASTER_ADDR={host} MASTER_PORT=$port\n"
        "srun --kill-on-bad-exit=1 bash -c 'exec "
        f"{shlex.quote(PYTHON)} -m torch.distributed.run --nnodes=$SLURM_NNODES --node-rank=$SLURM_NODEID "
        f"--nproc-per-node=1 --master-addr=$MASTER_ADDR --master-port=$MASTER_PORT {train}'\n"
        "code=$?\n"
        "[ $code -eq 0 ] || scontrol requeue $SLURM_JOB_ID\n"
        "exit $code\n"
    )


def start(lab: Lab, work: Work) -> int:
    """Submit it; returns the job id."""
    return Commands(env=lab.env).submit(script(work, host=address(lab), port=port_base()))


def place(lab: Lab, work: Work, job_id: int) -> Place:
    """The rank and node to hit."""
    return slurm_place(lab, job_id)
