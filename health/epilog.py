"""What a job's epilog does: end and remove what the job has left, and drain the node for what stays.

Only the job's own user is touched, and only when that user has no other job on this node; the system's users never are.
What belongs to the job for certain (its cgroup) goes in any case. It never fails: slurmd would drain the node without
a reason that helps.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator

from trainmaster.health import acting, enforce, leftovers, node, policy, registry, runner, state
from trainmaster.health.check import Completed, Place, Source
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.leftovers import Left
from trainmaster.health.profile import Profile
from trainmaster.health.record import Any, NamedTuple
from trainmaster.health.sources import gpu_apps

GPU_TRIES, GPU_PAUSE_S = 3, 3.0
"""A driver takes seconds to tear a context down."""
DIE_S = 5.0
"""How long killed processes may take."""
ASK_S = 5.0
RM_S = 20.0
"""How long a folder in /dev/shm may take; it is memory."""


class Job(NamedTuple):
    """The job that has ended, as slurmd tells its epilog."""

    id: str
    uid: int
    gpus: tuple[str, ...]
    """Numbers of its GPUs on this node; none when it had none."""


def job_of(environ: Any) -> Job | None:
    """From the hook's environment; None when slurmd did not start it. Pure."""
    job, uid = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_JOB_UID", "")
    if not job.isdecimal() or not uid.isdecimal():
        return None
    return Job(job, int(uid), gpu_apps.numbers(environ.get("SLURM_JOB_GPUS", "")))


def run(options: node.Options, *, log: str = "") -> int:
    """Clean up after the job. Always returns 0."""
    job = job_of(os.environ)
    if job is None:
        return 0
    profile, _ = node.read_profile(options.root + options.profile)
    off = (*profile.names("off"), *node.switched_off(options.root + node.DISABLED))
    done: list[str] = []
    findings: list[Finding] = []
    if not registry.matches("host.stray", off):
        findings += _strays(options.root, job, done)
    if job.gpus and not registry.matches("gpu.leftover", off):
        findings += _gpus(options.root, profile, job, done)
    acting_findings = [finding for finding in findings if finding.bad]
    if acting_findings:
        done.append(_act(options, profile, findings))
    if done:
        acting.write_log(log, f"epilog of job {job.id}: {'; '.join(word for word in done if word)}")
    return 0


def _act(options: node.Options, profile: Profile, findings: list[Finding]) -> str:
    """Drain for what stays, as the site's modes allow."""
    decision = policy.decide(findings, checks={}, strikes={}, profile=profile, now_s=time.time())
    if decision.action.value not in ("drain", "drain-reset", "drain-requeue"):
        return decision.reason
    boot_id = state.read_boot_id(options.root)
    folder = options.root + options.state
    said, _ = enforce.enforce(decision, folder=folder, node=acting.node_name(), boot_id=boot_id)
    return f"{said}: {decision.reason}"


def _strays(root: str, job: Job, done: list[str]) -> list[Finding]:
    """End the user's processes and remove their files; findings about those that stay."""
    groups = [folder for folder, owner in leftovers.cgroups(root) if owner == job.id]
    inside = {pid for folder in groups for pid in leftovers.members(folder)}
    mine = [left for left in leftovers.processes(root) if left.uid == job.uid]
    shared = [path for path, uid, _ in leftovers.shared_memory(root) if uid == job.uid]
    if not mine and not shared and not groups:
        return []
    others = other_jobs(job) if leftovers.is_person(job.uid) and (mine or shared) else None
    # Only what was there before Slurm was asked: a job that came since is not ours to touch.
    doomed = [left for left in mine if left.pid in inside or others == []]
    if (mine or shared) and others != [] and leftovers.is_person(job.uid):
        why = "slurmctld did not answer" if others is None else f"the user's job {others[0]} is here, too"
        done.append(f"left {len(mine)} processes and {len(shared)} files of uid {job.uid} alone: {why}")
    stubborn = kill(root, doomed)
    if doomed:
        done.append(f"killed {', '.join(f'{left.name}[{left.pid}]' for left in doomed[:5])} of uid {job.uid}")
    if others == []:
        removed = [path for path in shared if _remove(path)]
        done += [f"removed {', '.join(removed[:5])}"] if removed else []
    for folder in groups:
        _remove_cgroup(folder)
    return [
        fail(Action.DRAIN, f"{left.name}[{left.pid}] of uid {left.uid} survives SIGKILL", subject=f"pid {left.pid}")
        ._replace(check="host.stray")
        for left in stubborn
    ]  # fmt: skip


def other_jobs(job: Job) -> list[str] | None:
    """The user's other jobs on this node; None when slurmctld does not say."""

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        host = acting.node_name()
        # Not --user: squeue refuses a number that has no name on this node.
        done = yield ["squeue", "--noheader", f"--nodelist={host}", "--format=%A %U"]
        pairs = [line.split() for line in done.out.splitlines()]
        found = [pair[0] for pair in pairs if len(pair) == 2 and pair[1] == str(job.uid) and pair[0] != job.id]
        return None if done.code != 0 else found

    source = Source(name="slurm", about="squeue", ask=ask, deadline_s=ASK_S)
    reading = runner.read_all([source], lambda source: Place(), budget_s=ASK_S)["slurm"]
    return reading.value if reading.state == "ok" else None


def kill(root: str, doomed: list[Left]) -> list[Left]:
    """SIGKILL to each, if it still is who it was; returns those that do not die."""
    for left in doomed:
        try:
            handle = os.pidfd_open(left.pid)
        except OSError:
            continue
        try:
            if _same(root, left):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except OSError:
            continue
        finally:
            os.close(handle)
    deadline_s = time.monotonic() + DIE_S
    alive = [left for left in doomed if _same(root, left)]
    while alive and time.monotonic() < deadline_s:
        time.sleep(0.05)
        alive = [left for left in alive if _same(root, left)]
    return alive


def _same(root: str, left: Left) -> bool:
    """Whether this very process still lives."""
    return any(now.pid == left.pid and now.started == left.started for now in _one(root, left))


def _one(root: str, left: Left) -> list[Left]:
    from trainmaster.health import files

    folder = f"{root}/proc/{left.pid}"
    found = leftovers.describe(left.pid, left.uid, files.text(f"{folder}/stat", 1024), None)
    return [found] if found is not None else []


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except IsADirectoryError:
        # Not shutil.rmtree, which calls itself for each level: 1,000 of them would end the epilog.
        source = Source(name="rm", about="rm", ask=lambda place: _rm(path), deadline_s=RM_S)
        reading = runner.read_all([source], lambda source: Place(), budget_s=RM_S)["rm"]
        return reading.state == "ok" and not os.path.lexists(path)
    except OSError:
        return False
    return True


def _rm(path: str) -> Generator[list[str], Completed, Any]:
    done = yield ["rm", "-rf", "--one-file-system", "--", path]
    return done.code


def _remove_cgroup(folder: str) -> None:
    """A cgroup's files cannot be removed, its folders can, from the innermost on."""
    for base, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(base)
        except OSError:
            continue


def _gpus(root: str, profile: Profile, job: Job, done: list[str]) -> list[Finding]:
    """Processes and memory on the job's GPUs, after a few tries."""
    left: list[Finding] = []
    for attempt in range(GPU_TRIES):
        if attempt:
            time.sleep(GPU_PAUSE_S)
        reading = runner.read_all(
            [gpu_apps.SOURCE], lambda source: Place(root, profile), budget_s=gpu_apps.SOURCE.deadline_s
        )[gpu_apps.SOURCE.name]
        if reading.state != "ok":
            # Trouble with the tool is the business of the next health check.
            return []
        left = gpu_apps.on(reading.value, job.gpus, profile.threshold("gpu.leftover", gpu_apps.IDLE_MIB))
        if not left:
            return []
        mine = {app["pid"] for app in reading.value["apps"]}
        doomed = [one for one in leftovers.processes(root) if one.pid in mine and one.uid == job.uid]
        if doomed and leftovers.is_person(job.uid) and other_jobs(job) == []:
            kill(root, doomed)
            done.append(f"killed {', '.join(f'{one.name}[{one.pid}]' for one in doomed[:5])} on its GPUs")
    return left
