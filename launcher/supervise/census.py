"""What Slurm has for a job that is about to be requeued: asked in a thread, since it may take seconds to answer."""

import threading
import time
from collections.abc import Sequence

from trainmaster.errors import SlurmError
from trainmaster.launcher.supervise import exclusions
from trainmaster.slurm.commands import Commands

PATIENCE_S = 4.0
"""How long a requeue waits for the answer; without one it leaves out only what is dead, and one more node."""


class Census:
    """One question under way."""

    def __init__(self, job_ids: Sequence[int | str], *, own: Sequence[str], steered: str = "") -> None:
        """Ask.

        Args:
            job_ids: the job, or all components of a heterogeneous one.
            own: hostlists that the person excludes.
            steered: the hostlist that was left out for the sake of the job's place.
        """
        self.eligible: tuple[frozenset[str], ...] = ()
        """Nodes that Slurm could give to each of these jobs; nothing while that is unknown."""
        self.current: tuple[str, ...] = ()
        """Nodes that the job excludes now."""
        self.steered: frozenset[str] = frozenset()
        """Those of them that are no longer excluded for the sake of the job's place."""
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._ask, args=(tuple(job_ids), tuple(own), steered), daemon=True)
        self._thread.start()

    def _ask(self, job_ids: tuple[int | str, ...], own: tuple[str, ...], steered: str) -> None:
        client = Commands(timeout_s=PATIENCE_S)
        try:
            jobs = [client.job(number) for number in job_ids]
            lists = [job.excluded_nodes for job in jobs if job is not None and job.excluded_nodes]
            self.current = client.hostnames(",".join(lists)) if lists else ()
            theirs = client.hostnames(",".join(filter(None, own))) if any(own) else ()
            self.steered = frozenset(client.hostnames(steered) if steered else ()) - set(theirs)
            nodes = client.nodes()
        except SlurmError:
            return
        self.eligible = tuple(exclusions.usable(nodes, job, excluded=theirs) for job in jobs)

    @property
    def done(self) -> bool:
        """Whether there is an answer, or it is too late for one."""
        return not self._thread.is_alive() or time.monotonic() - self._since > PATIENCE_S
