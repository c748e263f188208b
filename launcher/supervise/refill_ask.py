"""What a refill asks of Slurm, in a thread since it may take seconds: give back, look after, submit, cancel.

Standard library only.
"""

import math
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trainmaster.errors import SlurmError, SubmitRefused
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Job, Node

PATIENCE_S = 20.0
_NO_ACCOUNTING = "accounting_storage/none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do, all at once."""

    job_id: int | str
    """The job that has lost nodes."""
    submit: int = 0
    """How many nodes to ask for."""
    script: str = ""
    """The batch script of a refill."""
    waiting: tuple[int, ...] = ()
    """Refills that have been submitted and whose agents have not come."""
    cancel: tuple[int, ...] = ()
    """Refills that are not wanted any more."""
    present: tuple[str, ...] = ()
    """Nodes that the job uses."""
    lost: Mapping[str, float] = field(default_factory=dict)
    """Nodes that were lost -> when, in epoch seconds."""
    blamed: tuple[str, ...] = ()
    """Nodes that must not be used again, whatever Slurm thinks of them."""
    exclude: str = ""
    """The person's own hostlist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of it."""

    submitted: tuple[int, ...] = ()
    refused: str = ""
    """Slurm's words, when it takes no refill."""
    ended: tuple[int, ...] = ()
    """Refills that are over though their agents never came."""
    back: frozenset[str] = frozenset()
    """Lost nodes that are up again."""
    given_back: tuple[str, ...] = ()
    """Nodes that the job does not hold any more."""


def came_back(nodes: Iterable[Node], lost: Mapping[str, float]) -> frozenset[str]:
    """Lost nodes whose slurmd was started since, and that Slurm hears. Pure.

    Before that Slurm may well take a dead node for idle, until SlurmdTimeout.
    """
    return frozenset(
        node.name
        for node in nodes
        if node.name in lost
        and node.slurmd_start_time is not None
        and node.slurmd_start_time > lost[node.name]
        and not node.state.startswith("DOWN")
        and "*" not in node.state
    )


def left_out(order: Order, back: Collection[str], excluded: Sequence[str]) -> str:
    """The hostlist of nodes that a refill must not get. Pure. `excluded`: what the job itself excludes in Slurm."""
    gone = [node for node in order.lost if node not in back]
    return ",".join(dict.fromkeys([*filter(None, [order.exclude]), *excluded, *order.present, *gone, *order.blamed]))


def minutes_left(job: Job, now: float) -> int | None:
    """The time limit of a refill: what the job itself has left; None when it has no end."""
    return None if job.end_time is None else max(1, math.ceil((job.end_time - now) / 60))


class Asking:
    """One order under way."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.answer = Answer()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether there is an answer."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        client = Commands(timeout_s=PATIENCE_S)
        for number in self.order.cancel:
            try:
                client.cancel(number)
            except SlurmError:
                continue  # it is over, or Slurm does not answer; its agent leaves by itself
        try:
            self.answer = _carry_out(client, self.order)
        except SlurmError:
            return  # asked again later


def _carry_out(client: SlurmClient, order: Order) -> Answer:
    if not (order.submit or order.waiting or order.lost):
        return Answer()
    job = client.job(order.job_id)
    if job is None or job.state != "RUNNING":
        return Answer()
    back = came_back(client.nodes(), order.lost)
    given_back = _give_back(client, job, [node for node in back if node not in order.present])
    exclude = left_out(order, back, client.hostnames(job.excluded_nodes) if job.excluded_nodes else ())
    ended = tuple(number for number in order.waiting if _is_over(client, number, exclude))
    args = [f"--exclude={exclude}"]
    if (minutes := minutes_left(job, time.time())) is not None:
        args.append(f"--time={minutes}")
    submitted, refused = [], ""
    for _ in range(order.submit):
        try:
            submitted.append(client.submit(order.script, args=args))
        except SubmitRefused as error:
            refused = error.message
            break
        except SlurmError:
            break  # what was submitted has to be told
    return Answer(submitted=tuple(submitted), refused=refused, ended=ended, back=back, given_back=given_back)


def _is_over(client: SlurmClient, number: int, exclude: str) -> bool:
    """Whether a refill has ended; one that waits is told which nodes are left out by now."""
    refill = client.job(number)
    if refill is None or not refill.active:
        return True
    if refill.state == "PENDING":
        wanted = frozenset(client.hostnames(exclude)) if exclude else frozenset()
        has = frozenset(client.hostnames(refill.excluded_nodes)) if refill.excluded_nodes else frozenset()
        if wanted != has:
            client.update_job(number, ExcNodeList=exclude)
    return False


def _give_back(client: SlurmClient, job: Job, nodes: Sequence[str]) -> tuple[str, ...]:
    """Take nodes that were lost and are up again out of the job: Slurm would keep them for it until it ends.

    Only with accounting: without it Slurm takes no change of a job any more that a node was taken out of. The batch
    host cannot be given back.
    """
    held = client.hostnames(job.nodes)
    going = tuple(node for node in held if node in nodes and node != job.batch_host)
    if not going or client.config().get("AccountingStorageType", _NO_ACCOUNTING) == _NO_ACCOUNTING:
        return ()
    try:
        client.update_job(job.job_id, NodeList=",".join(node for node in held if node not in going))
    except SlurmError:
        return ()
    return going
