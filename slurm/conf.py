"""What a slurm.conf says of its cluster, read without asking a daemon. Standard library only."""

import re
from functools import lru_cache
from pathlib import Path

USUAL = (Path("/etc/slurm/slurm.conf"), Path("/etc/slurm-llnl/slurm.conf"), Path("/run/slurm/conf/slurm.conf"))
"""Where Slurm's commands look when SLURM_CONF is not set: Debian's and most sites', old Debian's, configless."""

# slurm.conf(5): keywords in any case, comments after #, and files that are read in their place.
_LINE = re.compile(r"^\s*(clustername|include)\s*=?\s*(\S+)", re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=256)
def cluster_name(slurm_conf: str = "") -> str:
    """The ClusterName of the cluster that SLURM_CONF names; "" when that cannot be read.

    Args:
        slurm_conf: The file; "" for the machine's own.
    """
    files = (Path(slurm_conf),) if slurm_conf else USUAL
    return next((name for file in files if (name := _name_in(file))), "")


def _name_in(file: Path, depth: int = 0) -> str:
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return ""
    for keyword, value in _LINE.findall(text):
        if keyword.lower() == "clustername":
            return str(value)
        if depth < 3 and (found := _name_in(file.parent / value, depth + 1)):
            return found
    return ""
