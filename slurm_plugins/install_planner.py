"""What the planner of placements needs on the host of slurmctld: a systemd unit for this installation and site.

    PREFIX/etc/systemd/system/trainmaster-planner.service
    PREFIX/etc/trainmaster/.installed-planner.json           what an uninstall removes

systemd is not spoken with. `install job-submit --placements PLACEMENTS` has job_submit.lua read what it writes.
"""

from pathlib import Path

from trainmaster.slurm_plugins import unit_text

MANIFEST = "etc/trainmaster/.installed-planner.json"
SOURCE = "trainmaster-planner.service"
UNIT = f"{unit_text.PLACE}/{SOURCE}"
PLACEMENTS = "/run/trainmaster-planner/placements"


def files(*, program: Path, user: str, slurm_conf: str = "") -> dict[str, bytes]:
    """By path below the prefix, what it shall hold. Arguments and errors are those of `unit_text.filled`."""
    text = unit_text.filled(SOURCE, what="planner", program=program, user=user, slurm_conf=slurm_conf)
    assert f"--output {PLACEMENTS} " in text
    return {UNIT: text.encode()}
