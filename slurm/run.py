"""The one place that starts a Slurm command: arguments in, text out, always with a deadline. Standard library only."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainmaster.errors import SlurmError, SlurmMissing, SlurmUnreachable

# What Slurm 22.05 to 26.05 print when the controller, not the request, is at fault.
_UNREACHABLE = (
    "Unable to contact slurm controller",
    "Socket timed out on send/recv operation",
    "Zero Bytes were transmitted or received",
    "Connection refused",
    "Slurm controller not responding",
    "Controller is in standby mode",
    "Slurm backup controller in standby mode",
    "Transport endpoint is not connected",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a command left behind."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    timeout_s: float = 30.0,
    input_text: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run one Slurm command and return what it printed.

    Raises SlurmMissing when it is not installed, SlurmUnreachable when slurmctld does not answer within `timeout_s`
    or says it cannot, and SlurmError for every other non-zero exit, with Slurm's own words.
    """
    try:
        done = subprocess.run(
            list(argv), input=input_text, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=env
        )
    except FileNotFoundError:
        raise SlurmMissing(
            f"could not run {argv[0]!r}: it is not on this machine's PATH",
            hint="submit from a login node of the cluster, or start one here with `trainmaster lab up`",
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmUnreachable(
            f"`{' '.join(argv)}` did not end within {timeout_s:g} s",
            hint="`scontrol ping` tells whether slurmctld is up",
        ) from None
    completed = Completed(argv=tuple(argv), returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)
    if done.returncode == 0:
        return completed
    said = (done.stderr.strip() or done.stdout.strip()) or "nothing"
    if "Could not establish a configuration source" in said:
        raise SlurmMissing(
            f"`{argv[0]}` is here, but it knows of no cluster: there is no slurm.conf and SLURM_CONF does not name one",
            hint='for a cluster on this machine: `trainmaster lab up`, then eval "$(trainmaster lab env)"',
        )
    if any(phrase in said for phrase in _UNREACHABLE):
        raise SlurmUnreachable(
            f"`{' '.join(argv)}` could not reach slurmctld; it said: {said}",
            hint="`scontrol ping` tells whether slurmctld is up; SLURM_CONF names the cluster",
        )
    raise SlurmError(f"`{' '.join(argv)}` failed with exit code {done.returncode}; it said: {said}")
