"""The one place that starts a Slurm command: arguments in, text out, always with a deadline. Standard library only."""

import logging
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainmaster.errors import SlurmError, SlurmMissing, SlurmUnreachable

LOG = logging.getLogger("trainmaster")

SLOW_S = 3.0
"""After so long without an answer a word is due to whoever waits for it."""

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
    cwd: str | None = None,
) -> Completed:
    """Run one Slurm command and return what it printed; while one is slow to answer, a warning says so, once.

    Raises SlurmMissing when it is not installed, SlurmUnreachable when slurmctld does not answer within `timeout_s`
    or says it cannot, and SlurmError for every other non-zero exit, with Slurm's own words.
    """
    try:
        done = _outcome(argv, timeout_s, input_text, env, cwd)
    except FileNotFoundError:
        raise _missing(argv) from None
    except subprocess.TimeoutExpired:
        raise SlurmUnreachable(
            f"`{' '.join(argv)}` did not end within {timeout_s:g} s",
            hint="`scontrol ping` tells whether slurmctld is up",
        ) from None
    completed = Completed(argv=tuple(argv), returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)
    if done.returncode == 0:
        return completed
    raise _refusal(argv, done.returncode, (done.stderr.strip() or done.stdout.strip()) or "nothing")


def stream(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """The lines that a Slurm command prints, as it prints them: for answers that are too long to be held.

    No deadline: a database may take its time. When the reader stops early the command is ended. Raises as `run` does,
    after the last line.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        try:
            process = subprocess.Popen(
                list(argv), stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace", env=env
            )
        except FileNotFoundError:
            raise _missing(argv) from None
        with process:
            try:
                assert process.stdout is not None
                yield from process.stdout
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            raise _refusal(argv, process.returncode, errors.read(20_000).strip() or "nothing")


def _missing(argv: Sequence[str]) -> SlurmMissing:
    return SlurmMissing(
        f"could not run {argv[0]!r}: it is not on this machine's PATH",
        hint="submit from a login node of the cluster, or start one here with `trainmaster lab up`",
    )


def _refusal(argv: Sequence[str], code: int, said: str) -> SlurmError:
    """What a command's words and its exit code mean."""
    if "Could not establish a configuration source" in said:
        return SlurmMissing(
            f"`{argv[0]}` is here, but it knows of no cluster: there is no slurm.conf and SLURM_CONF does not name one",
            hint='for a cluster on this machine: `trainmaster lab up`, then eval "$(trainmaster lab env)"',
        )
    if any(phrase in said for phrase in _UNREACHABLE):
        return SlurmUnreachable(
            f"`{' '.join(argv)}` could not reach slurmctld; it said: {said}",
            hint="`scontrol ping` tells whether slurmctld is up; SLURM_CONF names the cluster",
        )
    return SlurmError(f"`{' '.join(argv)}` failed with exit code {code}; it said: {said}")


class _Spell:
    """Whether it has been said that Slurm does not answer; it is said again only after it has."""

    told = False


def _outcome(
    argv: Sequence[str], timeout_s: float, input_text: str | None, env: Mapping[str, str] | None, cwd: str | None
) -> subprocess.CompletedProcess[str]:
    pipe = subprocess.PIPE
    stdin = None if input_text is None else pipe
    with subprocess.Popen(
        list(argv), stdin=stdin, stdout=pipe, stderr=pipe, text=True, errors="replace", env=env, cwd=cwd
    ) as process:
        try:
            try:
                out, err = process.communicate(input_text, timeout=min(SLOW_S, timeout_s))
                _Spell.told = False
            except subprocess.TimeoutExpired:
                if timeout_s <= SLOW_S:
                    raise
                if not _Spell.told:
                    _Spell.told = True
                    LOG.warning("Slurm does not answer `%s`; waiting up to %.0f s for it", argv[0], timeout_s)
                out, err = process.communicate(timeout=timeout_s - SLOW_S)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)
