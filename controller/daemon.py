"""Starts and ends the daemon: policy, journal, signals."""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from trainmaster.clock import SystemClock
from trainmaster.controller import observe, policy, rebuild, sd
from trainmaster.controller.acts import Plan
from trainmaster.controller.decide import decide
from trainmaster.controller.decide import observe as take_in
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.metrics import Metrics
from trainmaster.errors import ControllerError
from trainmaster.slurm.pyslurm_client import open_client

LOG = logging.getLogger("trainmaster.controller")


def run(journal_file: Path, policy_file: Path | None, *, once: bool, page: str = "") -> int:
    """Be the controller until SIGTERM or SIGINT; the exit code. `page`: ADDRESS:PORT to serve the page at."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    wanted = policy.load(policy_file)
    opened = open_client(wanted.client, timeout_s=30.0)
    LOG.info("Slurm is asked by %s: %s", type(opened.client).__name__, opened.why)
    journal = Journal(journal_file)
    metrics = Metrics()
    if wanted.metrics and not once:
        try:
            metrics.serve(wanted.metrics)
        except ControllerError as error:
            # Jobs come back whether or not somebody can count them.
            LOG.error("%s", error)
    controller = Controller(opened.client, journal, wanted, SystemClock(), metrics=metrics)
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())

    def wait(pause_s: float) -> None:
        sd.tell("WATCHDOG=1")
        ends.wait(pause_s)

    controller.start()
    sd.tell("READY=1")
    LOG.info("at work: journal %s, modes %s", journal_file, msgspec.json.encode(wanted.modes).decode())
    try:
        if once:
            controller.tick()
        else:
            with _page(page, journal_file, policy_file):
                controller.run(ends=ends.is_set, wait=wait)
    finally:
        sd.tell("STOPPING=1")
        controller.stop()
        journal.close()
    return 0


@contextmanager
def _page(listen: str, journal_file: Path, policy_file: Path | None) -> Iterator[None]:
    """The page in a process of its own: whatever a browser does to it, ticks go on. It ends when its input does."""
    if not listen:
        yield
        return
    argv = [sys.executable, "-m", "trainmaster", "controller", "page", "--until-eof", "--listen", listen]
    argv += ["--journal", str(journal_file), "--token-file", f"{journal_file}.token"]
    argv += ["--policy", str(policy_file)] if policy_file is not None else []
    process = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        assert process.stdin is not None, "asked for"
        process.stdin.close()
        try:
            process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def preview(policy_file: Path | None, *, as_json: bool) -> str:
    """What a controller that starts now would do, from one look at the cluster."""
    wanted = policy.load(policy_file)
    door = open_client(wanted.client, timeout_s=30.0).client
    now = SystemClock().now().timestamp()
    look = observe.look(door, now=now, leaf_of=observe.leaf_of(door))
    memory = take_in(look, rebuild.from_slurm(look, wanted, now), wanted, now)
    plan = decide(look, memory, wanted, now)
    return msgspec.json.encode(plan).decode() if as_json else words(plan, nodes=len(look.nodes), jobs=len(look.jobs))


def words(plan: Plan, *, nodes: int, jobs: int) -> str:
    """A plan for people."""
    lines = [f"{nodes} nodes, {jobs} jobs, {len(plan.acts)} acts"]
    lines += [f"  {act.kind} {','.join(act.targets)}: {act.why}" for act in plan.acts]
    lines += [f"  no {one.wanted} of {one.subject}, by {one.rule}: {one.why}" for one in plan.refused]
    lines += [f"  the breaker stops drains of {one.name or 'everything'}: {one.why}" for one in plan.trips]
    return "\n".join(lines)
