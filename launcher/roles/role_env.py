"""What the environment of a role's replica has beyond that of any rank. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainmaster.launcher.roles import registry


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """What the replicas of one start of a role share."""

    role: str
    job_dir: str
    size: int
    """Replicas of the role."""
    generation: int
    index: int | None = None
    """The one replica that starts, of a role whose replicas restart alone."""
    slot: int = 0
    """Its number on its node."""
    slots: int = 1


def role_environment(facts: RoleFacts, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a replica, made from that of a rank.

    A role is a world of its own. Where replicas restart alone there is none that they could all be members of at any
    one time, so they know their index and their number, but no MASTER_ADDR.
    """
    made = dict(env)
    if facts.index is not None:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            made.pop(name, None)
        index, size = str(facts.index), str(facts.size)
        made |= dict.fromkeys(("RANK", "ROLE_RANK", "SLURM_PROCID"), index)
        made |= dict.fromkeys(("WORLD_SIZE", "ROLE_WORLD_SIZE", "SLURM_NTASKS", "SLURM_NPROCS"), size)
        made |= dict.fromkeys(("LOCAL_RANK", "SLURM_LOCALID"), str(facts.slot))
        made["LOCAL_WORLD_SIZE"] = str(facts.slots)
        made["TORCHELASTIC_ERROR_FILE"] = made["TORCHELASTIC_ERROR_FILE"].replace("rank0.", f"rank{index}.")
    return made | {
        "ROLE_NAME": facts.role,
        "TRAINMASTER_ROLE": facts.role,
        "TRAINMASTER_ROLE_INDEX": made["RANK"],
        "TRAINMASTER_ROLE_SIZE": str(facts.size),
        "TRAINMASTER_GENERATION": str(facts.generation),
        "TRAINMASTER_JOB_DIR": facts.job_dir,
        "TRAINMASTER_REGISTRY": f"{facts.job_dir}/{registry.FILE}",
    }
