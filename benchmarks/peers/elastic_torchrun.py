"""(c) torchrun's own elasticity: N+1 nodes in one allocation that Slurm does not end, rendezvous on the batch host."""

import shlex

from peers.work import PYTHON, RANKS, SPARES, Place, Work, address, header, port_base, slurm_place
from trainmaster.lab.cluster import Lab
from trainmaster.slurm.commands import Commands

RESTARTS = 1000
TUNED = "join_timeout=60,last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3,"
"""As quick as its rendezvous can be made: by default it counts a silent agent out after 15 s, waits 30 s for more than
the least number of nodes, and gives up after ten minutes with fewer."""
OWN_STORE = "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1\n"
"""A new store for each round. By default all rounds share one; in the one run made so, on a busy machine, ranks that
were restarted had not found each other after two minutes ("connectFullMesh failed ... refused", torch 2.13)."""


def script(work: Work, *, host: str, port: int, tuned: bool) -> str:
    """The batch script. The batch host alone may hold the store: all lab nodes have one address, so it is told who."""
    train = shlex.join(work.words)
    return header(work, "elastic-torchrun", RANKS + SPARES, "--no-kill", "--no-requeue") + (
        f"{OWN_STORE}"
        "srun --no-kill --kill-on-bad-exit=0 bash -c 'exec "
        f"{shlex.quote(PYTHON)} -m torch.distributed.run --nnodes={RANKS}:{RANKS + SPARES} --nproc-per-node=1 "
        f"--max-restarts={RESTARTS} --rdzv-backend=c10d --rdzv-endpoint={host}:{port} --rdzv-id=$SLURM_JOB_ID "
        f"--rdzv-conf={TUNED if tuned else ''}is_host=$((SLURM_NODEID == 0)) --local-addr={host} {train}'\n"
    )


def start(lab: Lab, work: Work) -> int:
    """Submit it with torchrun's default time-outs; returns the job id."""
    return Commands(env=lab.env).submit(script(work, host=address(lab), port=port_base(), tuned=False))


def start_tuned(lab: Lab, work: Work) -> int:
    """Submit it with the quickest rendezvous; returns the job id."""
    return Commands(env=lab.env).submit(script(work, host=address(lab), port=port_base(), tuned=True))


def place(lab: Lab, work: Work, job_id: int) -> Place:
    """The rank and node to hit. Which rank runs where is torchrun's choice, and does not matter."""
    return slurm_place(lab, job_id)
