"""`trainmaster jobs swap`: a running job leaves nodes, and its spares take over."""

import argparse
import json
import time
from typing import TYPE_CHECKING

from trainmaster.launcher.follow.jobs_args_cli import new_verb

if TYPE_CHECKING:
    from trainmaster.launcher.follow.jobs_args_cli import Verbs

_POLL_S = 0.25
_READ_PATIENCE_S = 30.0


def add(verbs: "Verbs") -> None:
    """Describe the verb."""
    text = "have a running job leave nodes: ranks save, spares take over, and Slurm gets the nodes back"
    verb = new_verb(verbs, "swap", text, run_swap)
    verb.add_argument("nodes", nargs="+", metavar="NODE", help="nodes of the job, or hostlists")
    verb.add_argument("--reason", default="", help="why, for the job's record")
    verb.add_argument("--within", type=float, metavar="S", help="of no use any more after so many seconds")
    verb.add_argument("--no-wait", action="store_true", help="do not wait until the spares have taken over")
    verb.add_argument("--dry-run", action="store_true", help="only say what would be asked")


def run_swap(args: argparse.Namespace) -> int:
    """Ask, wait for what becomes of it, and say it; 1 when the nodes are not left."""
    from trainmaster.launcher.follow import swap
    from trainmaster.launcher.follow.find import find
    from trainmaster.launcher.follow.watch import Watch

    watch = Watch.of(find(args.job_id, args.folder))
    nodes = [name for one in args.nodes for name in watch.queue.client.hostnames(one)]
    told: dict[str, object] = {"job_id": watch.id.plain, "nodes": nodes}
    if args.dry_run:
        attempt = swap.attempt_of(watch)
        told |= {"attempt": attempt, "would": "ask the supervisor to leave them"}
        print(json.dumps(told) if args.json else f"job {watch.id.plain}: would be asked to leave {', '.join(nodes)}")
        return 0
    until = time.time() + args.within if args.within is not None else None
    request = swap.ask(watch, nodes, reason=args.reason, until=until)
    deadline = time.monotonic() + _READ_PATIENCE_S
    said = ""
    while True:
        answer = swap.answer_to(watch.events(), request.id)
        text = swap.words(answer, nodes)
        if text != said and answer is not None and not args.json:
            print(f"job {watch.id.plain}: {text}", flush=True)
            said = text
        over = watch.end() is not None
        if over or (answer is not None and (answer.final or args.no_wait or answer.answer == "at_restart")):
            break
        if answer is None and time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    if answer is None and not args.json:
        print(f"job {watch.id.plain}: {'it has ended' if over else swap.words(None, nodes)}")
    found = {"answer": answer.answer, "why_not": answer.why_not, "given_back": answer.given_back} if answer else {}
    if args.json:
        print(json.dumps(told | {"id": request.id} | found))
    return 0 if answer is not None and answer.answer in ("swapped", "accepted", "at_restart") else 1
