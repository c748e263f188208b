"""`trainmaster jobs diagnose`: stop and check by hand, in an allocation that one holds."""

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.diagnose.session import Diagnosis
    from trainmaster.launcher.follow.jobs_args_cli import Verbs

EXIT_CLEAN, EXIT_GUILTY, EXIT_UNKNOWN = 0, 2, 3
"""As those of `trainmaster health check`."""


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "which node, or pair of nodes, of a running job is slow or broken: health checks and all-reduces in pairs"
    verb = new_verb(verbs, "diagnose", text, run_diagnose, job=None)
    text = "a running job of yours (default: the one that this shell is in); nothing else should run in it meanwhile"
    verb.add_argument("job_id", nargs="?", metavar="JOB", help=text)
    verb.add_argument("--nodes", metavar="LIST", help="only these of its nodes, as a hostlist")
    text = "by what nodes meet: torch (gloo, or NCCL where there are GPUs; default), mpi, or none"
    verb.add_argument("--means", choices=("torch", "mpi", "none"), default="torch", help=text)
    verb.add_argument("--gpus-per-node", metavar="N", help="GPUs that the check may use on each node")
    verb.add_argument("--limit-s", type=float, default=120.0, metavar="S", help="be done by then (120)")
    verb.add_argument("--folder", type=Path, help="a folder that all nodes see, for what they tell (default: here)")
    verb.add_argument("--dry-run", action="store_true", help="only print the command line")


def run_diagnose(args: argparse.Namespace) -> int:
    """Check all nodes, print who is to blame."""
    from trainmaster.errors import UsageError
    from trainmaster.launcher.diagnose.node import Task
    from trainmaster.launcher.diagnose.session import Session, command
    from trainmaster.slurm.commands import Commands

    client = Commands()
    job_id = args.job_id or os.environ.get("SLURM_JOB_ID", "")
    if not job_id:
        raise UsageError(
            "could not diagnose: this shell is in no Slurm job", hint="name one, or call it under salloc or sbatch"
        )
    job = client.job(job_id)
    if job is None or job.state != "RUNNING":
        raise UsageError(f"could not diagnose job {job_id}: it is {job.state if job else 'not known to Slurm'}")
    held = client.hostnames(job.nodes)
    names = client.hostnames(args.nodes) if args.nodes else held
    if strange := sorted(set(names) - set(held)):
        raise UsageError(f"could not diagnose {', '.join(strange)}: not of job {job_id}, which has {job.nodes}")
    addresses = {node.name: _address(node.address or node.name) for node in client.nodes(",".join(names))}
    task = Task(addresses={name: addresses[name] for name in names}, means=args.means, limit_s=args.limit_s)
    folder = (args.folder or Path.cwd()).absolute() / f".diagnosis-{job.job_id}-{os.getpid()}"
    options = [f"--jobid={job.job_id}", *([f"--gpus-per-node={args.gpus_per_node}"] if args.gpus_per_node else [])]
    argv = command(sys.executable, folder, names, means=args.means, options=options)
    if args.dry_run:
        print(json.dumps(argv) if args.json else shlex.join(argv))
        return EXIT_CLEAN
    session = Session(folder, task, argv)
    session.start()
    try:
        while not session.over(time.monotonic()):
            time.sleep(0.05)
    except KeyboardInterrupt:
        while not session.over(time.monotonic()):
            session.stop(time.monotonic())
            time.sleep(0.05)
    found = session.diagnosis()
    print(json.dumps(found.as_json()) if args.json else _as_text(found))
    if not found.told:
        return EXIT_UNKNOWN
    return EXIT_CLEAN if found.verdict.clean else EXIT_GUILTY


def _address(name: str) -> str:
    import socket

    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return name


def _as_text(found: "Diagnosis") -> str:
    lines = [f"{len(found.told)} of {len(found.nodes)} nodes answered in {found.took_s:.1f} s"]
    lines[0] += f"; {found.rounds} rounds of pairs by {found.means}" if found.means else ""
    for one in (*found.verdict.nodes, *found.verdict.pairs):
        lines.append(f"{' and '.join(one.nodes)}: {one.why}")
    if found.verdict.clean:
        lines.append("no node is to blame")
    lines += found.verdict.notes
    lines += [f"{node}: {told.note}" for node, told in found.told.items() if told.note]
    if found.said:
        lines.append(f"srun said: {found.said.strip()}")
    return "\n".join(lines)
