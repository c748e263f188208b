"""Between two cycles, when it is unclear whether a node is at fault: look at all nodes before ranks go back on them.

Standard library only. The ranks are stopped and the allocation is held, so nothing disturbs the measurement and nobody
else can take the nodes. What was found lies in `diagnosis-<attempt>.<cycle>.json`, the cycle being the one that ended.
"""

import json
import logging
import os
import re
import time
from pathlib import Path

from trainmaster.launcher import runner
from trainmaster.launcher.diagnose.node import Task
from trainmaster.launcher.diagnose.session import Diagnosis, Session, command
from trainmaster.launcher.diagnose.verdict import to_leave
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.supervise import exchange, suspects
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.links import node_of
from trainmaster.launcher.supervise.supervised import Supervised

LOG = logging.getLogger("trainmaster.supervisor")
NEVER, ON_SUSPICION = "never", "on_suspicion"
CRASHES_MIN = 2
"""Crashes on end without a new step, after which it may be the nodes."""
_PYTHONS_OWN = re.compile(r"^Traceback \(most recent call last\)", re.MULTILINE)
_OF_THE_NETWORK = re.compile(r"NCCL|gloo|c10d|ibv_|UCX|ECC|CUDA error|Connection (reset|closed)", re.IGNORECASE)


def is_called_for(decision: Decision) -> bool:
    """Whether a restart may be due to a node that goes on being bad. Pure.

    A hang and a straggler are such; a crash when it comes again, unless it is an exception of the program's own, which
    no node explains. A lost node is known already, and left out.
    """
    if decision.action is not Action.RESTART:
        return False
    if decision.cause in ("hang", exchange.CAUSE):
        return True
    failure = decision.failure
    if decision.cause != "rank_crash" or failure is None or decision.budget.no_progress < CRASHES_MIN:
        return False
    return not _PYTHONS_OWN.search(failure.text) or bool(_OF_THE_NETWORK.search(failure.text))


def file_of(run_dir: Path, *, attempt: int, cycle: int) -> Path:
    """Where the result of the round after a cycle lies."""
    return run_dir / f"diagnosis-{attempt}.{cycle}.json"


def means_of(plan: Plan) -> str:
    """By what the nodes of a job meet: as its ranks do."""
    return "mpi" if plan.runner == runner.MPI else "torch"


class StopAndCheck:
    """The rounds of one supervisor, at most one at a time for each group."""

    def __init__(self, job: Supervised, chronicle: Chronicle) -> None:
        self.job = job
        self._record = chronicle
        self._sessions: dict[Group, Session] = {}

    def begin(self, group: Group, decision: Decision) -> bool:
        """Start a round on all nodes of a group and its spares, if one is called for; whether it was."""
        plan = group.plan
        if plan.diagnose != ON_SUSPICION or group.replica is not None or not is_called_for(decision):
            return False
        component = self.job.component(group)
        places = component.healthy(self.job.dead)
        # A guest is of another allocation, where a step of this one cannot go.
        members = [member for member in self.job.links.of(places) if member.job is None]
        if len(members) < 2:
            return False
        # The store of the tournament lies on the first: this supervisor's own node works, or it would not be here.
        here = os.environ.get("SLURMD_NODENAME", "")
        members.sort(key=lambda member: (member.node != here, member.place))
        folder = self.job.run_dir / component.name / f".diagnosis-{self.job.attempt}.{group.cycle.number}"
        means = means_of(plan)
        task = Task(
            addresses={member.node: member.address for member in members}, means=means, limit_s=plan.diagnose_limit_s
        )
        options = [f"--gpus-per-node={plan.gpus_per_node}"] if plan.gpus_per_node else []
        if plan.cpus_per_task is not None:
            options.append(f"--cpus-per-task={plan.cpus_per_task * plan.tasks_per_node}")
        if group.role is not None:
            options.append(f"--het-group={self.job.components.index(component)}")
        argv = command(plan.python, folder, list(task.addresses), means=means, options=options)
        LOG.warning("stop and check on %s, because of %s", ",".join(task.addresses), decision.cause)
        self._sessions[group] = Session(folder, task, argv)
        self._sessions[group].start()
        return True

    def over(self, group: Group, now: float) -> bool:
        """Whether the round of a group is over, and what it found has been acted on."""
        session = self._sessions[group]
        if not session.over(now):
            return False
        del self._sessions[group]
        self._act(group, session.diagnosis())
        return True

    def stop(self, group: Group, now: float) -> bool:
        """The job is being ended: end the round too; whether nothing of it is left."""
        session = self._sessions.get(group)
        if session is None or session.over(now):
            self._sessions.pop(group, None)
            return True
        session.stop(now)
        return False

    def _act(self, group: Group, found: Diagnosis) -> None:
        room = self.job.healthy(group) - group.wanted
        leave = to_leave(found.verdict, spares=room)
        for place in self.job.component(group).healthy(self.job.dead):
            if node_of(place) in leave:
                self.job.dead[place] = "diagnosis"
                self.job.links.dismiss(place)
        cycle = group.cycle.number
        try:
            view = found.as_json() | {"left_out": list(leave)}
            file_of(
                self.job.run_dir / self.job.component(group).name, attempt=self.job.attempt, cycle=cycle
            ).write_text(json.dumps(view) + "\n")
        except OSError as error:
            LOG.warning("could not keep the diagnosis: %s", error)
        blamed = [*found.verdict.nodes, *found.verdict.pairs]
        detail = {
            "guilty": [{"nodes": one.nodes, "why": one.why} for one in blamed],
            "left_out": leave,
            "took_s": round(found.took_s, 2),
            "means": found.means,
            "rounds": found.rounds,
            "notes": found.verdict.notes,
        }
        LOG.warning("stop and check took %.1f s: %s", found.took_s, detail["guilty"] or "nobody is to blame")
        self._record.tell("DIAGNOSED", group, cause="diagnosis", dead=leave, detail=detail)
        for one in blamed:
            suspects.add(
                self.job.run_dir,
                "diagnosis",
                one.nodes,
                attempt=self.job.attempt,
                cycle=cycle,
                epoch_s=time.time(),
            )
