"""What the controller's host needs: a systemd unit for this installation and site, and a policy to begin with.

    PREFIX/etc/systemd/system/trainmaster-controller.service
    PREFIX/etc/trainmaster/controller.toml                      the site's to edit
    PREFIX/etc/trainmaster/.installed-controller.json           what an uninstall removes

PREFIX is / on the host itself; another one is for packages and images. systemd is not spoken with.
"""

import re
from pathlib import Path

from trainmaster.errors import InstallError

# Not in /var/lib/trainmaster, which is the controller's: whoever may write it would choose what root removes.
MANIFEST = "etc/trainmaster/.installed-controller.json"
UNIT = "etc/systemd/system/trainmaster-controller.service"
POLICY = "etc/trainmaster/controller.toml"
SOURCE = Path(__file__).resolve().parent / "systemd/trainmaster-controller.service"
_POLICY_TEXT = """\
# The controller's policy. Until modes say "act" it looks, remembers, and says what it would do: `trainmaster controller
# status`. All keys are described in docs/operating.md; a misspelt one is refused.
[modes]
default = "propose"
"""


def files(*, program: Path, user: str, slurm_conf: str = "") -> dict[str, bytes]:
    """By path below the prefix, what it shall hold. Pure but for the unit's own text.

    Args:
        program: the `trainmaster` command that the unit starts.
        user: whom the controller runs as: slurm.conf's SlurmUser, or another operator of Slurm.
        slurm_conf: where the cluster's slurm.conf is, if it is not where Slurm's commands look.

    Raises InstallError for what a unit cannot hold.
    """
    if not program.is_absolute() or re.search(r"[\s\"'\\%$]", f"{program}{slurm_conf}"):
        raise InstallError(f"{program} cannot stand in a unit", hint="name the command by its whole, plain path")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*\$?", user):
        raise InstallError(f"{user!r} is no user's name", hint="--user takes slurm.conf's SlurmUser")
    text = SOURCE.read_text(encoding="utf-8")
    # The head of the file tells how to put it in place by hand, which has just been done.
    text = "# Written by `trainmaster install controller`.\n" + re.sub(r"\A(?:#.*\n)+", "", text)
    environment = f"Environment=SLURM_CONF={slurm_conf}\n" if slurm_conf else ""
    for pattern, line in (
        (r"^User=.*$", f"User={user}"),
        (r"^Group=.*$", ""),  # the user's own
        (r"^ExecStart=\S+", f"{environment}ExecStart={program}"),
    ):
        text, count = re.subn(pattern, line, text, count=1, flags=re.MULTILINE)
        assert count == 1, f"{SOURCE.name} has no {pattern}"
    return {UNIT: text.encode(), POLICY: _POLICY_TEXT.encode()}
