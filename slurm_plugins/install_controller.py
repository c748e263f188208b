"""What the controller's host needs: a systemd unit for this installation and site, and a policy to begin with.

    PREFIX/etc/systemd/system/trainmaster-controller.service
    PREFIX/etc/trainmaster/controller.toml                      the site's to edit
    PREFIX/etc/trainmaster/.installed-controller.json           what an uninstall removes

PREFIX is / on the host itself; another one is for packages and images. systemd is not spoken with.
"""

from pathlib import Path

from trainmaster.slurm_plugins import unit_text

# Not in /var/lib/trainmaster, which is the controller's: whoever may write it would choose what root removes.
MANIFEST = "etc/trainmaster/.installed-controller.json"
SOURCE = "trainmaster-controller.service"
UNIT = f"{unit_text.PLACE}/{SOURCE}"
POLICY = "etc/trainmaster/controller.toml"
_POLICY_TEXT = """\
# The controller's policy. Until modes say "act" it looks, remembers, and says what it would do: `trainmaster controller
# status`. All keys are described in docs/operating.md; a misspelt one is refused.
[modes]
default = "propose"
"""


def files(*, program: Path, user: str, slurm_conf: str = "") -> dict[str, bytes]:
    """By path below the prefix, what it shall hold. Arguments and errors are those of `unit_text.filled`."""
    text = unit_text.filled(SOURCE, what="controller", program=program, user=user, slurm_conf=slurm_conf)
    return {UNIT: text.encode(), POLICY: _POLICY_TEXT.encode()}
