"""What of Slurm is installed on this machine, and what to install when something is missing."""

import os
import re
import shutil
import subprocess

from trainmaster.errors import LabError

# Users seldom have the daemons' folders on their PATH.
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "slurmdbd": "slurmdbd slurm-wlm-mysql-plugin",
    "slurmctld": "slurmctld slurm-wlm-basic-plugins",
    "slurmd": "slurmd slurm-wlm-basic-plugins",
    "ip": "iproute2",
    "ibsim": "ibsim-utils",
    "opensm": "opensm",
    "ibnetdiscover": "infiniband-diags",
    "perfquery": "infiniband-diags",
    "ibqueryerrors": "infiniband-diags",
}
_CLIENT_PACKAGE = "slurm-client"
COMMANDS = ("munged", "slurmctld", "slurmd", "scontrol", "sinfo", "squeue", "sbatch", "srun", "scancel")
ACCOUNTING_COMMANDS = ("mariadbd", "mariadb-install-db", "slurmdbd", "sacctmgr")


def search_path() -> str:
    """The PATH on which daemons are looked for."""
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}".lstrip(":")


def package_hint(*commands: str) -> str:
    """What to type to get these commands on Debian."""
    names = " ".join(_PACKAGES.get(command, _CLIENT_PACKAGE) for command in commands).split()
    return f"apt-get install {' '.join(dict.fromkeys(names))}"


def require(commands: tuple[str, ...]) -> None:
    """Raise LabError with the packages to install when one of the commands is missing."""
    missing = [command for command in commands if shutil.which(command, path=search_path()) is None]
    if missing:
        raise LabError(f"a lab needs {', '.join(missing)}, not found on this machine", hint=package_hint(*missing))


def slurm_version() -> str:
    """What `slurmctld -V` says, such as "22.05.8"."""
    done = subprocess.run(
        ["slurmctld", "-V"], capture_output=True, text=True, check=False, env={**os.environ, "PATH": search_path()}
    )
    match = re.search(r"\d+\.\d+\.\d+", done.stdout)
    if done.returncode != 0 or not match:
        raise LabError(f"`slurmctld -V` should say its version, it said {done.stdout + done.stderr!r}")
    return match[0]
