"""The client over Slurm's commands. Pinned text formats only; standard library only, since the supervisor uses it.

`--json` is not used: Debian 12's scontrol lacks it, and its layout changes with each release.
"""

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from trainmaster.errors import SlurmError, SlurmMissing, SlurmUnreachable, SubmitRefused
from trainmaster.slurm import job_text, parse
from trainmaster.slurm.run import Completed, run
from trainmaster.slurm.values import Attempt, Estimate, Job, Node, Partition, Reservation

_Read = TypeVar("_Read")

# What an outer job or a login shell leaves behind and sbatch would silently obey: SLURM_CPU_BIND, SBATCH_MEM_PER_NODE.
_INHERITED = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "PMI_", "PMIX_", "PMI2_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without what an outer Slurm job left in it; what names the cluster is kept.

    >>> clean_environment({"SLURM_JOB_ID": "7", "SLURM_CONF": "/etc/slurm.conf", "HOME": "/root"})
    {'SLURM_CONF': '/etc/slurm.conf', 'HOME': '/root'}
    """
    return {key: value for key, value in env.items() if key in _KEPT or not key.startswith(_INHERITED)}


def _read(reader: Callable[[str, str], _Read], text: str, mark: str) -> _Read:
    try:
        return reader(text, mark)
    except ValueError as error:
        raise SlurmError(f"could not read what squeue printed: {error}") from None


class Commands:
    """sbatch, squeue, scontrol and scancel of the cluster that `env` (default: this process's) points at."""

    def __init__(self, *, env: Mapping[str, str] | None = None, timeout_s: float = 30.0) -> None:
        self._env = dict(env) if env is not None else None
        self._timeout_s = timeout_s

    def _run(
        self,
        *argv: str,
        input_text: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Completed:
        conf = (os.environ if self._env is None else self._env).get("SLURM_CONF")
        if conf and not Path(conf).exists():
            # Slurm's commands would look for it for a minute before they say so.
            raise SlurmMissing(
                f"could not run `{argv[0]}`: SLURM_CONF names {conf}, which is not there",
                hint="that lab or cluster is gone; `unset SLURM_CONF`, or point it at another",
            )
        return run(
            argv, timeout_s=self._timeout_s, input_text=input_text, env=self._env if env is None else env, cwd=cwd
        )

    def submit(self, script_text: str, *, args: Sequence[str] = ()) -> int:
        """`sbatch`, the script on its standard input and the environment cleaned of an outer job's variables."""
        env = clean_environment(os.environ if self._env is None else self._env)
        try:
            done = self._run("sbatch", "--parsable", *args, input_text=script_text, env=env)
        except (SlurmUnreachable, SlurmMissing):
            raise
        except SlurmError as error:
            raise SubmitRefused(error.message, hint=error.hint) from None
        # "123" or "123;cluster", after any remark of a site's cli_filter.
        last = done.stdout.strip().splitlines()[-1:] or [""]
        number = last[0].partition(";")[0]
        if not number.isdecimal():
            raise SlurmError(f"sbatch was expected to print a job id, it printed {done.stdout!r} {done.stderr!r}")
        return int(number)

    def job(self, job_id: int | str) -> Job | None:
        """One job, by its number or as part of one (`12_3`, `12+1`); None when Slurm has forgotten it."""
        jobs = self._known_jobs("--jobs", str(job_id))
        leader, is_part, offset = str(job_id).partition("+")
        if is_part:
            # A number that is no heterogeneous job's gets an answer all the same (22.05.8).
            return next((job for job in jobs if (job.het_job_id, job.het_offset) == (int(leader), int(offset))), None)
        # Of an array or a heterogeneous job all tasks and parts are shown; its own number is that of one of them.
        return next((job for job in jobs if str(job.job_id) == str(job_id)), jobs[0] if jobs else None)

    def tasks(self, job_id: int) -> tuple[Job, ...]:
        """The tasks of an array; none when Slurm has forgotten it."""
        return tuple(job for job in self._known_jobs("--jobs", str(job_id)) if job.array_job_id == job_id)

    def parts(self, job_id: int) -> tuple[Job, ...]:
        """The parts of a heterogeneous job; none when Slurm has forgotten it."""
        return tuple(job for job in self._known_jobs("--jobs", str(job_id)) if job.het_job_id == job_id)

    def all_jobs(self, *, exclusions_of: Callable[[Job], bool] = lambda job: True) -> tuple[Job, ...]:
        """Every job that slurmctld knows, those that ended lately too; `excluded_nodes` of those that are asked for.

        ExcNodeList is a question of its own: a second one for all jobs, which is left out where no job needs it.
        """
        return self._known_jobs(exclusions_of=exclusions_of)

    def jobs(self, *, user: str | None = None) -> tuple[Job, ...]:
        """The jobs that are not over, without their `excluded_nodes`."""
        mark = job_text.new_mark()
        args = ["--user", user] if user is not None else []
        return _read(job_text.jobs, self._squeue(*args, "--Format", job_text.asked(mark)), mark)

    def _known_jobs(self, *args: str, exclusions_of: Callable[[Job], bool] = lambda job: True) -> tuple[Job, ...]:
        mark = job_text.new_mark()
        try:
            text = self._squeue("--states=all", *args, "--Format", job_text.asked(mark))
            jobs = _read(job_text.jobs, text, mark)
            asked = {job.job_id for job in jobs if exclusions_of(job)}
            more = self._squeue("--states=all", *args, "--format", job_text.asked_exclusions(mark)) if asked else ""
        except (SlurmUnreachable, SlurmMissing):
            raise
        except SlurmError as error:
            if "Invalid job id" in error.message:
                return ()
            raise
        left_out = {
            number: names for number, names in _read(job_text.exclusions, more, mark).items() if number in asked
        }
        return tuple(
            replace(job, excluded_nodes=left_out[job.job_id]) if job.job_id in left_out else job for job in jobs
        )

    def _squeue(self, *args: str) -> str:
        outer = os.environ if self._env is None else self._env
        env = {
            **{key: value for key, value in outer.items() if not key.startswith("SQUEUE_")},
            # Or squeue cuts the list of an array's waiting tasks short.
            "SLURM_BITSTR_LEN": "0",
            "SLURM_TIME_FORMAT": "standard",
        }
        return self._run("squeue", "--noheader", "--all", "--noconvert", *args, env=env).stdout

    def leaves(self) -> dict[str, str]:
        """By node, its leaf switch, of `scontrol show topology`; hostlists as keys. Empty without a topology."""
        try:
            return parse.leaves(self._run("scontrol", "-o", "show", "topology").stdout)
        except (SlurmUnreachable, SlurmMissing):
            raise
        except SlurmError:
            return {}

    def update_nodes(self, names: str, **fields: str) -> None:
        """`scontrol update` of a hostlist of nodes, in one call."""
        self._run("scontrol", "update", f"NodeName={names}", *(f"{key}={value}" for key, value in fields.items()))

    def hold(self, job_id: int | str) -> None:
        """`scontrol uhold`: kept in the queue until somebody, its owner for one, releases it."""
        self._run("scontrol", "uhold", str(job_id))

    def release(self, job_id: int | str) -> None:
        """`scontrol release`: what was held may start."""
        self._run("scontrol", "release", str(job_id))

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        """`scontrol show node`."""
        done = self._run("scontrol", "-o", "show", "node", *([names] if names else []))
        return tuple(parse.node(line) for line in done.stdout.splitlines() if line.startswith("NodeName="))

    def shown(self, what: str) -> tuple[dict[str, str], ...]:
        """Everything that `scontrol show` says of all nodes or partitions, one dictionary each, as Slurm names it."""
        return tuple(
            parse.record(line) for line in self._run("scontrol", "-o", "show", what).stdout.splitlines() if line
        )

    def topology(self) -> str:
        """`scontrol show topology`, which fails on some versions where there is no topology plug-in."""
        try:
            return self._run("scontrol", "show", "topology").stdout
        except SlurmUnreachable:
            raise
        except SlurmError:
            return ""

    def partitions(self) -> tuple[Partition, ...]:
        """`scontrol show partition`."""
        lines = self._run("scontrol", "-o", "show", "partition").stdout.splitlines()
        return tuple(parse.partition(line) for line in lines if line.startswith("PartitionName="))

    def reservations(self) -> tuple[Reservation, ...]:
        """`scontrol show reservation`."""
        lines = self._run("scontrol", "-o", "show", "reservation").stdout.splitlines()
        return tuple(parse.reservation(line) for line in lines if line.startswith("ReservationName="))

    def estimate(self, script_text: str) -> Estimate | None:
        """`sbatch --test-only`, which tells on stderr."""
        env = clean_environment(os.environ if self._env is None else self._env)
        try:
            return parse.estimate(self._run("sbatch", "--test-only", input_text=script_text, env=env).stderr)
        except (SlurmUnreachable, SlurmMissing):
            raise
        except SlurmError as error:
            raise SubmitRefused(error.message, hint=error.hint) from None

    def cancel(self, job_id: int | str, *, signal: str | None = None) -> None:
        """`scancel`."""
        self._run("scancel", *([f"--signal={signal}"] if signal else []), str(job_id))

    def signal(self, job_id: int | str, name: str) -> None:
        """`scancel --batch --signal`."""
        self._run("scancel", "--batch", f"--signal={name}", str(job_id))

    def requeue(self, job_id: int | str, *, incomplete: bool = True, hold: bool = False) -> None:
        """`scontrol requeue` or `requeuehold`."""
        verb = "requeuehold" if hold else "requeue"
        self._run("scontrol", verb, *(["Incomplete"] if incomplete else []), str(job_id))

    def update_job(self, job_id: int | str, **fields: str) -> None:
        """`scontrol update`, in a folder of its own: after a change of NodeList it leaves scripts where it runs."""
        words = [f"JobId={job_id}", *(f"{key}={value}" for key, value in fields.items())]
        with tempfile.TemporaryDirectory(prefix="trainmaster-update-") as folder:
            self._run("scontrol", "update", *words, cwd=folder if "NodeList" in fields else None)

    def create_reservation(self, name: str, **fields: str) -> None:
        """`scontrol create reservation`, with the fields named as scontrol names them (`Nodes="n[1-4]"`)."""
        pairs = (f"{key}={value}" for key, value in fields.items())
        self._run("scontrol", "create", "reservation", f"ReservationName={name}", *pairs)

    def update_reservation(self, name: str, **fields: str) -> None:
        """`scontrol update reservation`; `Nodes` is the whole list, since 22.05 takes no += or -= there."""
        pairs = (f"{key}={value}" for key, value in fields.items())
        self._run("scontrol", "update", "reservation", f"ReservationName={name}", *pairs)

    def reboot(self, names: str, *, reason: str) -> None:
        """`scontrol reboot nextstate=DOWN`: the nodes come back DOWN, so that somebody looks before jobs do.

        On an empty node it happens at once, on others when their jobs are over. Slurm hangs `: reboot issued` and then
        `: reboot complete` onto the reason.
        """
        self._run("scontrol", "reboot", "nextstate=DOWN", f"reason={reason}", names)

    def delete_reservation(self, name: str) -> None:
        """`scontrol delete`; refused while jobs run in it."""
        self._run("scontrol", "delete", f"ReservationName={name}")

    def reconfigure(self) -> None:
        """`scontrol reconfigure`: all daemons read their configuration anew."""
        self._run("scontrol", "reconfigure")

    def batch_script(self, job_id: int) -> str:
        """`scontrol write batch_script`."""
        done = self._run("scontrol", "write", "batch_script", str(job_id), "-")
        if not done.stdout:
            # Its exit code is 0 all the same (22.05.8).
            raise SlurmError(f"could not read the script of job {job_id}; scontrol said: {done.stderr.strip()}")
        return done.stdout

    def history(self, job_id: int | str) -> tuple[Attempt, ...]:
        """`sacct --duplicates`, one line a start; none where no accounts are kept."""
        fields = "JobIDRaw,State,Start,End,ExitCode,NodeList"
        try:
            done = self._run("sacct", "-j", str(job_id), "-X", "-n", "-P", "-D", "-o", fields)
        except (SlurmUnreachable, SlurmMissing):
            raise
        except SlurmError as error:
            if "accounting storage is disabled" in error.message:
                return ()
            raise
        return tuple(found for line in done.stdout.splitlines() if (found := parse.attempt(line)) is not None)

    def cancelled_by(self, job_id: int | str) -> str | None:
        """`sacct`, which tells "CANCELLED by <uid>"; None where no accounts are kept. The job itself does not tell."""
        try:
            done = self._run("sacct", "-j", str(job_id), "-X", "-n", "-P", "-D", "-o", "State")
        except SlurmError:
            return None
        match = parse.CANCELLED_BY.fullmatch((done.stdout.strip().splitlines() or [""])[-1])
        return parse.user_name(int(match[1])) if match is not None else None

    def hostnames(self, nodelist: str) -> tuple[str, ...]:
        """`scontrol show hostnames`, which asks no daemon."""
        return tuple(self._run("scontrol", "show", "hostnames", nodelist).stdout.split())

    def array_size_max(self) -> int:
        """MaxArraySize and `max_array_tasks` of `scontrol show config`."""
        text = self._run("scontrol", "show", "config").stdout
        found = re.findall(r"^MaxArraySize\s*=\s*(\d+)|max_array_tasks=(\d+)", text, re.MULTILINE)
        return min((int(size or tasks) for size, tasks in found), default=1001)

    def config(self) -> dict[str, str]:
        """What slurmctld runs with, by key: `scontrol show config`."""
        return parse.config(self._run("scontrol", "show", "config").stdout)

    def version(self) -> str:
        """`sinfo --version`, which asks no daemon: the release of the commands here, such as "slurm-wlm 22.05.8"."""
        return self._run("sinfo", "--version").stdout.strip()

    def mpi_types(self) -> tuple[str, ...]:
        """`srun --mpi=list`, which asks no daemon."""
        done = self._run("srun", "--mpi=list")
        return parse.mpi_types(f"{done.stdout}\n{done.stderr}")

    def srun_has(self, option: str) -> bool:
        """`srun --help`, which asks no daemon."""
        return f"--{option}" in self._run("srun", "--help").stdout

    def ping(self) -> bool:
        """`scontrol ping`."""
        try:
            return " UP" in self._run("scontrol", "ping").stdout
        except SlurmError:
            return False
