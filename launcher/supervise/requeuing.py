"""The supervisor's part of a requeue: which nodes to leave out, and the process that does the rest.

Standard library only.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from trainmaster.launcher import drills, placement, record
from trainmaster.launcher.supervise import exclusions, slurm_side
from trainmaster.launcher.supervise.census import Census
from trainmaster.launcher.supervise.exclusions import Exclusion
from trainmaster.launcher.supervise.links import node_of, nodes_of
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.work import Verdict


class Requeuing:
    """One requeue: ask Slurm what there is, decide, leave the order."""

    def __init__(self, job: Supervised, verdict: Verdict) -> None:
        self.job = job
        self._verdict = verdict
        self._events = [event for event in record.read(job.run_dir) if event.job_id == job.job_id]
        self._before = exclusions.as_before(self._events)
        self._own = [component.plan.exclude for component in job.components]
        self._candidates = self._failed_nodes(time.time())
        self._census: Census | None = None
        steered = placement.left_out(job.run_dir)
        if self._candidates or self._before or steered:
            # A job whose nodes are all well, and that may go anywhere, need not trouble slurmctld.
            job_ids = slurm_side.component_ids(os.environ) or (job.job_id,)
            self._census = Census(job_ids, own=self._own, steered=steered)
        self._exclude = ""
        self._clear = False
        self._asking: subprocess.Popen[bytes] | None = None

    @property
    def ready(self) -> bool:
        """Whether Slurm has answered, or need not be waited for."""
        return self._census is None or self._census.done

    def _failed_nodes(self, now: float) -> Sequence[Exclusion]:
        """Nodes that have failed this job, lately or just now."""
        decision = self._verdict.decision
        # When everything is lost at once, the nodes are the last to be blamed; and without them nothing would be left.
        # Where a srun has ended, its agents follow one by one, and the first of them are all that we may have seen.
        sruns_live = not any(one.launch is not None and one.launch.gone for one in self.job.components)
        excused = set() if self.job.links.members and sruns_live else self._lost()
        blamed = [node for node in nodes_of(decision.exclude) if node not in excused]
        known = exclusions.recall(self._events, now=now, ttl_s=self.job.plan.exclude_for_s)
        starts = {one.node: one.starts_failed for one in known}
        quick = {decision.budget.quick_node, *(blamed if decision.cause == "start" else ())}
        fresh = {
            node: Exclusion(
                node=node, epoch_s=now, why=decision.cause, starts_failed=starts.get(node, 0) + (node in quick)
            )
            for node in blamed
        }
        found = ({one.node: one for one in known} | fresh).values()
        # A rehearsal says nothing of its node.
        return tuple(one for one in found if one.node not in drills.nodes_of(self.job.run_dir, epoch_s=one.epoch_s))

    def _lost(self) -> set[str]:
        """Nodes that are out of reach, and not only left out."""
        return {node_of(place) for place, why in self.job.dead.items() if why in exclusions.DEAD}

    def settle(self) -> dict[str, Any]:
        """Decide which nodes are left out; returns what the record says of it."""
        now, census = time.time(), self._census
        chosen = self._candidates
        eligible = census.eligible if census is not None and census.eligible else (None,)
        for one, component in zip(eligible, self.job.components, strict=False):
            wanted = component.plan.nodes + component.plan.spares
            chosen = exclusions.choose(chosen, eligible=one, wanted=wanted, now=now)
        ours = sorted(one.node for one in chosen)
        current = census.current if census is not None else ()
        before = self._before | (census.steered if census is not None else frozenset())
        self._exclude = exclusions.merged(self._own, current, before, ours)
        self._clear = bool(current) and not self._exclude
        detail: dict[str, Any] = {"excluded": ours, "exc_node_list": self._exclude}
        detail["exclusions"] = [one.as_detail() for one in chosen]
        if spared := sorted({one.node for one in self._candidates} - set(ours)):
            # They were too many, or without them there would be no place for the job.
            detail["not_excluded"] = spared
        return detail | ({"held": True} if self._verdict.decision.hold else {})

    @property
    def asked(self) -> bool:
        """Whether Slurm was asked for the requeue, so that the job may end."""
        return self._asking is None or self._asking.poll() is not None

    def leave(self) -> None:
        """Start the process that requeues the job and outlives it. Call `settle` first, and wait for `asked`."""
        now = time.time()
        self._asking = slurm_side.leave_requeuer(
            self.job.run_dir,
            self.job.job_id,
            restarts=self.job.attempt,
            exclude=self._exclude,
            clear=self._clear,
            hold=self._verdict.decision.hold,
            dead=nodes_of(self.job.dead) if any(one.is_dead(now) for one in self._candidates) else (),
            components=slurm_side.component_ids(os.environ)[1:],
        )
