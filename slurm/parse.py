"""Reads what `scontrol -o show` prints. Pure but for user names; standard library only.

A record is one line of `Key=Value` pairs. Values may hold blanks and equal signs (Reason, Comment, Command), so a pair
ends only where the next known-looking key begins: a capitalised word directly followed by `=`.
"""

import pwd
import re
from datetime import datetime

from trainmaster.slurm.values import Attempt, Estimate, Node, Partition, Reservation

_PAIR = re.compile(r"(?:^|\s)([A-Z][A-Za-z0-9_:/]*)=")
CANCELLED_BY = re.compile(r"CANCELLED by (\d+)")
"""The state of a cancelled job as sacct has it, with the user's number."""
_EMPTY = {"", "(null)", "None", "N/A", "Unknown", "none"}


def record(line: str) -> dict[str, str]:
    """One line of `scontrol -o` as a dictionary; of a key that occurs twice the first counts.

    >>> record("JobId=7 JobName=a b=c Reason=out of disk UserId=root(0)")["JobName"]
    'a b=c'
    """
    # 12,500 nodes have half a million pairs: this leaves the work to the regular expression's own loop.
    parts = _PAIR.split(line)
    return dict(zip(parts[-2::-2], map(str.strip, parts[:0:-2]), strict=True))


def _text(value: str | None) -> str:
    return "" if value is None or value in _EMPTY else value


def integer(value: str | None) -> int:
    """The number that a text begins with; 0 when it begins with none."""
    match = re.match(r"-?\d+", value or "")
    return int(match.group()) if match else 0


def epoch_s(value: str | None) -> float | None:
    """Slurm's local time (`2026-11-23T07:00:00`) in seconds since the epoch; None when it is not a time."""
    try:
        # Slurm prints the time zone of the machine, which is also this process's.
        return datetime.fromisoformat(value or "").timestamp()
    except ValueError:
        return None


def user_name(uid: int) -> str:
    """The login name of a user, or the number of one who has none here.

    >>> user_name(0), user_name(4_000_000_000)
    ('root', '4000000000')
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def node(line: str) -> Node:
    """A node from one line of `scontrol -o show node`."""
    values = record(line)
    # "Reason=out of disk [root@2026-11-23T07:00:00]": who and when are Slurm's addition.
    reason = re.sub(r" \[[^\]]*@[^\]]*\]$", "", _text(values.get("Reason")))
    return Node(
        name=values.get("NodeName", ""),
        state=_text(values.get("State")),
        address=_text(values.get("NodeAddr")),
        reason=reason,
        features=tuple(filter(None, _text(values.get("AvailableFeatures")).split(","))),
        partitions=tuple(filter(None, _text(values.get("Partitions")).split(","))),
        gres=_text(values.get("Gres")),
        cpus=integer(values.get("CPUTot")),
        memory_mib=integer(values.get("RealMemory")),
        version=_text(values.get("Version")),
        slurmd_start_time=epoch_s(values.get("SlurmdStartTime")),
    )


def partition(line: str) -> Partition:
    """A partition from one line of `scontrol -o show partition`."""
    values = record(line)
    return Partition(
        name=values.get("PartitionName", ""),
        nodes=_text(values.get("Nodes")),
        total_nodes=integer(values.get("TotalNodes")),
        up=values.get("State") == "UP",
        default=values.get("Default") == "YES",
        max_time=_text(values.get("MaxTime")),
        default_time="" if values.get("DefaultTime") == "NONE" else _text(values.get("DefaultTime")),
        default_memory=next(
            (f"{key}={values[key]}" for key in ("DefMemPerNode", "DefMemPerCPU") if values.get(key, "").isdecimal()), ""
        ),
        job_defaults=_text(values.get("JobDefaults")),
    )


def reservation(line: str) -> Reservation:
    """A reservation from one line of `scontrol -o show reservation`."""
    values = record(line)
    return Reservation(
        name=values.get("ReservationName", ""),
        nodes=_text(values.get("Nodes")),
        partition=_text(values.get("PartitionName")),
        start_time=epoch_s(values.get("StartTime")),
        end_time=epoch_s(values.get("EndTime")),
        flags=_words(values.get("Flags")),
        state=_text(values.get("State")),
        users=_words(values.get("Users")),
        accounts=_words(values.get("Accounts")),
    )


def leaves(text: str) -> dict[str, str]:
    """By hostlist, the leaf switch that these nodes hang under, of `scontrol -o show topology`.

    >>> leaves("SwitchName=leaf1 Level=0 LinkSpeed=1 Nodes=n[01-04]\\nSwitchName=top Level=1 Nodes=n[01-08]")
    {'n[01-04]': 'leaf1'}
    """
    found = {}
    for line in text.splitlines():
        values = record(line)
        if values.get("Level") == "0" and values.get("SwitchName") and _text(values.get("Nodes")):
            found[values["Nodes"]] = values["SwitchName"]
    return found


def attempt(line: str) -> Attempt | None:
    """One start of a job from a line of sacct's `JobIDRaw|State|Start|End|ExitCode|NodeList`; None for another line.

    >>> attempt("7|CANCELLED by 1000|Unknown|Unknown|0:0|None assigned").state
    'CANCELLED'
    """
    parts = line.split("|")
    if len(parts) != 6 or not parts[0].isdecimal():
        return None
    number, state, start, end, exit_code, nodes = parts
    return Attempt(
        job_id=int(number),
        state=state.partition(" ")[0],
        start_time=epoch_s(start),
        end_time=epoch_s(end),
        exit_code=exit_code,
        nodes="" if nodes == "None assigned" else nodes,
    )


def _words(value: str | None) -> tuple[str, ...]:
    return tuple(filter(None, _text(value).split(",")))


# "sbatch: Job 7 to start at 2026-11-23T10:00:00 using 16 processors on nodes n[01-02] in partition batch"
_ESTIMATE = re.compile(r"Job \d+ to start at (\S+) .*?on nodes (\S+)(?: in partition (\S+))?")


def estimate(text: str) -> Estimate | None:
    """What `sbatch --test-only` says on stderr; None when it says something else.

    >>> estimate("sbatch: Job 7 to start at soon using 1 processors on nodes n1 in partition p") is None
    True
    """
    match = _ESTIMATE.search(text)
    start_time = epoch_s(match[1]) if match else None
    if match is None or start_time is None:
        return None
    return Estimate(start_time=start_time, nodes=match[2], partition=match[3] or "")


def mpi_types(text: str) -> tuple[str, ...]:
    """The plug-ins that `srun --mpi=list` names, one a line, and the versions of pmix that it adds since 21.08.

    >>> mpi_types("MPI plugin types are...\\n\\tpmix\\n\\tnone\\nspecific pmix plugin versions available: pmix_v4")
    ('pmix', 'none', 'pmix_v4')
    """
    types: list[str] = []
    for line in text.splitlines():
        head, colon, tail = line.partition(":")
        words = tail.replace(",", " ").split()
        # Before 21.08: "srun: pmix", one a line, below "srun: MPI types are...".
        if "versions" in head or (head == "srun" and len(words) == 1):
            types += words
        elif not colon and re.fullmatch(r"\s+[a-z]\w*", line):
            types.append(line.strip())
    return tuple(dict.fromkeys(types))


def config(text: str) -> dict[str, str]:
    """`Key = value` lines of `scontrol show config`; headings and the sections after the first are left out.

    >>> config("Configuration data as of 2026\\nPrologFlags             = Alloc\\n\\nSlurmctld(primary) at h is UP")
    {'PrologFlags': 'Alloc'}
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and " " not in key.strip() and key.strip() not in found:
            found[key.strip()] = value.strip()
    return found
