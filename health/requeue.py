"""The job that cannot go on: requeued when its node has lost a GPU or an adapter, where the site wants that.

Slurm's DRAIN leaves a running job alone, and a program whose GPU fell off the bus may hang until its time limit. What
is requeued, and what is left alone, is decided by `verdict`, which is pure:

- only while our own drain of the node stands, so never in a storm, and never on a node that somebody has resumed;
- only a batch job with Requeue=1 that is RUNNING, and that uses what is lost: GPUs, or for adapters more than one node;
- not a job of trainmaster's launcher: it notices a lost node itself and puts a spare in its place, without a requeue;
- each job once for a cause, written down before Slurm is asked, and no job that comes later than the cause by minutes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Generator, Mapping, Sequence

from trainmaster.health import files, kept, ledger, runner
from trainmaster.health.check import Completed, Place, Source, SourceFault
from trainmaster.health.finding import Action, Finding
from trainmaster.health.record import Any, NamedTuple

FILE = "requeued.json"
OPEN_S = 300.0
"""For how long after a cause was first seen jobs are requeued for it."""
PATIENCE_S = 8.0
JOBS_MAX = 16
LAUNCHER = b"trainmaster/launcher", b"trainmaster.launcher"

Memory = Mapping[str, Any]
"""By cause, `{"since_s": epoch seconds, "jobs": [ids]}`."""


class Running(NamedTuple):
    """A job on this node, as `scontrol -o show job` has it."""

    job: str
    leader: str
    """The job that is requeued: itself, or the first of a heterogeneous job."""
    state: str
    requeue: bool
    batch: bool
    nodes: int
    gpus: bool


def job_of(line: str) -> Running | None:
    """The job in a line of `scontrol -o show job`; None for anything else. Form: Slurm 22.05 to 24.11. Pure.

    >>> job_of("JobId=7 JobState=RUNNING Requeue=1 BatchFlag=1 NumNodes=2 TresPerNode=gres:gpu:8").gpus
    True
    """
    words: dict[str, str] = {}
    for word in line.split():
        key, equals, value = word.partition("=")
        if equals and key not in words:
            words[key] = value
    if not words.get("JobId", "").isdecimal():
        return None
    tres = " ".join(value for key, value in words.items() if key.startswith(("Tres", "TRES", "ReqTRES", "AllocTRES")))
    nodes = words.get("NumNodes", "1").partition("-")[0]
    return Running(
        job=words["JobId"],
        leader=words.get("HetJobId", words["JobId"]),
        state=words.get("JobState", ""),
        requeue=words.get("Requeue") == "1",
        batch=words.get("BatchFlag") == "1",
        nodes=int(nodes) if nodes.isdecimal() else 1,
        gpus="gpu" in tres,
    )


def opened(memory: Memory, findings: Sequence[Finding], boot_id: str, now_s: float) -> dict[str, Any]:
    """The memory with this pass's causes in it, and without those of other boots. Pure."""
    kept = {key: entry for key, entry in memory.items() if key.startswith(f"{boot_id}|") and _sound(entry)}
    for finding in findings:
        if finding.action is Action.DRAIN_REQUEUE:
            kept.setdefault(f"{boot_id}|{finding.key}", {"since_s": now_s, "jobs": []})
    return kept


def due(memory: Memory, findings: Sequence[Finding], boot_id: str, now_s: float) -> list[str]:
    """The causes of this pass for which jobs are still requeued. Pure."""
    causes = {f"{boot_id}|{finding.key}" for finding in findings if finding.action is Action.DRAIN_REQUEUE}
    return sorted(key for key in causes if key in memory and 0 <= now_s - memory[key]["since_s"] <= OPEN_S)


def verdict(job: Running, causes: Sequence[str], launched: Collection[str], memory: Memory) -> tuple[str, str]:
    """The cause for which a job is to be requeued, or why it is left alone: one of the two is empty. Pure."""
    if job.state != "RUNNING":
        return "", f"it is {job.state}"
    if not job.batch:
        return "", "it is no batch job"
    if not job.requeue:
        return "", "it is not to be requeued (Requeue=0)"
    if job.job in launched or job.leader in launched:
        return "", "trainmaster's launcher replaces the node itself"
    for cause in causes:
        group = cause.partition("|")[2].partition(".")[0]
        concerned = job.gpus if group == "gpu" else job.nodes > 1
        if concerned:
            return ("", "it was requeued for this before") if job.leader in memory[cause]["jobs"] else (cause, "")
    return "", "it does not use what is lost"


def launched_here(proc: str = "/proc", conf: str = "") -> set[str]:
    """Ids of the jobs whose supervisor or agent runs on this node, by the environment of these processes."""
    found = set()
    for pid in files.names(proc):
        if not pid.isdecimal():
            continue
        words = (files.text(f"{proc}/{pid}/cmdline", 4096) or "").encode()
        if not any(name in words for name in LAUNCHER):
            continue
        pairs = (pair.partition("=") for pair in (files.text(f"{proc}/{pid}/environ") or "").split("\0"))
        env = {name: value for name, _, value in pairs}
        # Several Slurms on one machine, as labs are, number their jobs alike.
        if conf and env.get("SLURM_CONF", conf) != conf:
            continue
        found |= {env[name] for name in ("SLURM_JOB_ID", "SLURM_HET_JOB_ID") if env.get(name, "").isdecimal()}
    return found


def requeue(findings: Sequence[Finding], *, folder: str, node: str, boot_id: str, reason: str) -> str:
    """Requeue the jobs that cannot go on; returns what was done, in words, empty for nothing.

    Args:
        findings: of this pass, as the site lets them act.
        folder: of the state.
        node: as Slurm calls it.
        boot_id: of this boot.
        reason: of our drain, as it stands in Slurm; nothing is done while it does not.
    """
    path = f"{folder}/{FILE}"
    now_s = time.time()
    memory = opened(kept.table(path), findings, boot_id, now_s)
    causes = due(memory, findings, boot_id, now_s)
    if not causes or not reason:
        return ""

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        shown = yield ["scontrol", "--oneliner", "show", "node", node]
        view = ledger.view_of(shown.out, "", node=node, now_s=now_s) if shown.code == 0 else None
        if view is None or not view.drained or view.reason != reason:
            return []
        listed = yield ["squeue", "--noheader", f"--nodelist={node}", "--states=RUNNING", "--format=%A"]
        ids = sorted({word for word in listed.out.split() if word.isdecimal()}, key=int)[:JOBS_MAX]
        if listed.code != 0:
            raise SourceFault("slurmctld does not tell which jobs run here")
        jobs = []
        for job in ids:
            jobs.append(job_of((yield ["scontrol", "--oneliner", "show", "job", job]).out))
        launched = launched_here(conf=os.environ.get("SLURM_CONF", "")) if jobs else set()
        told = []
        for one in jobs:
            if one is None:
                continue
            cause, why_not = verdict(one, causes, launched, memory)
            if not cause:
                told.append(f"left job {one.job} alone: {why_not}")
                continue
            memory[cause]["jobs"].append(one.leader)
            if not kept.replace(path, json.dumps(memory)):
                # Not to be able to write it down might mean to do it again and again.
                told.append(f"left job {one.job} alone: {path} cannot be written")
                continue
            words = f"trainmaster: requeued, since {node} was drained: {reason}"
            yield ["scontrol", "update", f"JobId={one.leader}", f"AdminComment={words}"]
            done = yield ["scontrol", "requeue", "Incomplete", one.leader]
            said = " ".join((done.err or done.out).split())[:120]
            told.append(f"requeued job {one.leader}" if done.code == 0 else f"could not requeue {one.leader}: {said}")
        return told

    source = Source(name="slurm", about="squeue, scontrol", ask=ask, deadline_s=PATIENCE_S)
    reading = runner.read_all([source], lambda source: Place(), budget_s=PATIENCE_S)["slurm"]
    kept.replace(path, json.dumps(memory))
    return "; ".join(reading.value) if reading.state == "ok" else ""


def _sound(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("since_s"), (int, float))
        and isinstance(entry.get("jobs"), list)
    )
