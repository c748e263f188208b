"""A systemd unit as a site needs it: its user, its command, its slurm.conf."""

import re
from pathlib import Path

from trainmaster.errors import InstallError

FOLDER = Path(__file__).resolve().parent / "systemd"
PLACE = "etc/systemd/system"


def filled(source: str, *, what: str, program: Path, user: str, slurm_conf: str = "") -> str:
    """The text of a unit. Pure but for the unit's own text.

    Args:
        source: The unit's file in `FOLDER`.
        what: What `trainmaster install` calls it.
        program: The `trainmaster` command that the unit starts.
        user: Whom it runs as: slurm.conf's SlurmUser, or another operator of Slurm.
        slurm_conf: Where the cluster's slurm.conf is, if it is not where Slurm's commands look.

    Raises InstallError for what a unit cannot hold.
    """
    if not program.is_absolute() or re.search(r"[\s\"'\\%$]", f"{program}{slurm_conf}"):
        raise InstallError(f"{program} cannot stand in a unit", hint="name the command by its whole, plain path")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*\$?", user):
        raise InstallError(f"{user!r} is no user's name", hint="--user takes slurm.conf's SlurmUser")
    text = (FOLDER / source).read_text(encoding="utf-8")
    # The head of the file tells how to put it in place by hand, which has just been done.
    text = f"# Written by `trainmaster install {what}`.\n" + re.sub(r"\A(?:#.*\n)+", "", text)
    environment = f"Environment=SLURM_CONF={slurm_conf}\n" if slurm_conf else ""
    for pattern, line in (
        (r"^User=.*$", f"User={user}"),
        (r"^Group=.*$", ""),  # the user's own
        (r"^ExecStart=\S+", f"{environment}ExecStart={program}"),
    ):
        text, count = re.subn(pattern, line, text, count=1, flags=re.MULTILINE)
        assert count == 1, f"{source} has no {pattern}"
    return text
