"""The environment of one rank: all that torchrun sets, so that a script written for it runs unmodified. Pure.

Source of the names: torch.distributed.elastic.agent.server.local_elastic_agent (torch 2.13) and torchrun's manual.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainmaster.launcher.plan import Plan
from trainmaster.launcher.roles.role_env import RoleFacts, role_environment

# MASTER_PORT must lie outside the kernel's ephemeral range, from which any outgoing connection may take it first.
PORT_LOWEST, PORT_HIGHEST = 10000, 32000


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleFacts:
    """What all ranks of one cycle share."""

    job_id: int | str
    uid: str
    run_dir: str
    attempt: int
    cycle: int
    cause: str
    """Why this cycle was started; empty the first time."""
    nodes: tuple[str, ...]
    tasks_per_node: int
    master_addr: str
    master_port: int
    restarts_max: int
    role: RoleFacts | None = None
    """Set in a job of roles."""
    distrusted_from: int | None = None
    """Training had diverged: what was saved after this step or later is not to be gone on from."""

    @classmethod
    def from_message(cls, values: Mapping[str, Any]) -> "CycleFacts":
        """The facts as they come over the wire."""
        role = values.get("role")
        return cls(**{**values, "nodes": tuple(values["nodes"]), "role": RoleFacts(**role) if role else None})


def base_environment(plan: Plan, inherited: Mapping[str, str]) -> dict[str, str]:
    """What every rank's environment starts from: the job's own, with what the plan adds.

    What the person has set, in the shell, in setup lines or in `env`, wins over the plan's `env_defaults`. When the
    code was copied, Python looks there before the tree that it was copied from.

    >>> plan = Plan(uid="u", name="n", run_dir="/r", python="p", nodes=1, env_defaults={"A": "1", "B": "1"})
    >>> base_environment(plan, {"B": "mine"})
    {'A': '1', 'B': 'mine'}
    """
    env = {**plan.env_defaults, **inherited, **plan.env}
    if plan.code_root:
        paths = list(plan.code_paths)
        for entry in filter(None, env.get("PYTHONPATH", "").split(":")):
            if (entry + "/").startswith(plan.code_root + "/"):
                paths.append(plan.code_dir + entry[len(plan.code_root) :])
            paths.append(entry)
        if paths:
            env["PYTHONPATH"] = ":".join(dict.fromkeys(paths))
    return env


def rank_environment(facts: CycleFacts, *, node: str, local_rank: int, base: Mapping[str, str]) -> dict[str, str]:
    """Variables of the rank `local_rank` on `node`. `base` is what the rank inherits; the user's choices in it stay."""
    group_rank = facts.nodes.index(node)
    per_node = facts.tasks_per_node
    rank = group_rank * per_node + local_rank
    world = len(facts.nodes) * per_node
    folder = f"{facts.run_dir}/attempt{facts.attempt}.{facts.cycle}"
    env = {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(per_node),
        "GROUP_RANK": str(group_rank),
        "GROUP_WORLD_SIZE": str(len(facts.nodes)),
        "ROLE_NAME": "default",
        "ROLE_RANK": str(rank),
        "ROLE_WORLD_SIZE": str(world),
        "MASTER_ADDR": facts.master_addr,
        "MASTER_PORT": str(facts.master_port),
        "TORCHELASTIC_RESTART_COUNT": str(facts.cycle),
        "TORCHELASTIC_MAX_RESTARTS": str(facts.restarts_max),
        "TORCHELASTIC_RUN_ID": facts.uid,
        # Rank 0 hosts the store itself. With "True" torch would look for one in the agent.
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_ERROR_FILE": f"{folder}/rank{rank}.error.json",
        "TRAINMASTER_RUN_DIR": facts.run_dir,
        "TRAINMASTER_ATTEMPT": str(facts.attempt),
        "TRAINMASTER_CYCLE": str(facts.cycle),
        "TRAINMASTER_CAUSE": facts.cause,
        "TRAINMASTER_NODES": ",".join(facts.nodes),
        # srun counted agents, spares among them; a script that reads these means ranks.
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(local_rank),
        "SLURM_NODEID": str(group_rank),
        "SLURM_NTASKS": str(world),
        "SLURM_NPROCS": str(world),
        "SUBMITIT_EXECUTOR": "trainmaster",
        "SUBMITIT_FOLDER": facts.run_dir,
    }
    if facts.distrusted_from is not None:
        env["TRAINMASTER_DISTRUSTED_FROM"] = str(facts.distrusted_from)
    if per_node > 1 and "OMP_NUM_THREADS" not in base:
        env["OMP_NUM_THREADS"] = "1"
    # A dead peer must surface as an error, as under torchrun, unless the user chose otherwise.
    if "TORCH_NCCL_ASYNC_ERROR_HANDLING" not in base:
        env["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "1"
    return env if facts.role is None else role_environment(facts.role, env)


def port_range(ephemeral_lowest: int, ephemeral_highest: int) -> range:
    """Ports that nothing takes by chance, given /proc/sys/net/ipv4/ip_local_port_range.

    >>> port_range(32768, 60999)
    range(10000, 32000)
    >>> port_range(15000, 60999)
    range(10000, 15000)
    """
    if ephemeral_lowest >= PORT_LOWEST + 1000:
        return range(PORT_LOWEST, min(PORT_HIGHEST, ephemeral_lowest))
    if ephemeral_highest <= 64000:
        return range(ephemeral_highest + 1, 65536)
    # The site made almost every port ephemeral; below them is what services use. Testing the port has to do.
    return range(PORT_LOWEST, PORT_HIGHEST)


def candidate_ports(allowed: range, *, count: int, seed: int | None = None) -> list[int]:
    """Random ports of the range to be tested in turn, all different."""
    return random.Random(seed).sample(allowed, min(count, len(allowed)))
