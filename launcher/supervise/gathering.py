"""Waiting for the agents: when there are enough to begin, and when there will never be. Standard library only."""

import logging
import time

from trainmaster.launcher.container import MISSING
from trainmaster.launcher.supervise import slurm_side
from trainmaster.launcher.supervise.decide import Action, Decision, answer
from trainmaster.launcher.supervise.ending import Reason
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.launch import Launch
from trainmaster.launcher.supervise.links import nodes_of, role_of
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.symptom import Outcome, RankExit, Symptom

LOG = logging.getLogger("trainmaster.supervisor")
GATHER_PATIENCE_S = 3.0
"""How long to wait for the last agents once there are enough."""
LAUNCHES_MAX = 3
"""How often srun may try to launch the agents of one attempt."""


class Gathering:
    """The time before the first ranks start."""

    def __init__(self, job: Supervised) -> None:
        self.job = job
        self.known: set[str] = set()
        """Places of an earlier epoch, whose agents are expected."""
        self._since = time.monotonic()
        self._enough_since: float | None = None
        self._asked_why = False

    def hear(self, launch: Launch) -> None:
        """Take in what an srun says: agents that have ended will not come."""
        component = next(one for one in self.job.components if one.launch is launch)
        dead = self.job.dead
        for node in launch.hear():
            dead |= {place: "agent_failed" for place in component.places_on(node) if place not in dead}

    def is_enough(self, now: float) -> bool:
        """Whether the ranks of all roles can be started; the last agents are waited for a little."""
        components, dead = self.job.components, self.job.dead
        if any(len(one.healthy(dead)) < one.wanted for one in components):
            return False
        self._enough_since = self._enough_since or now
        there = sum(len(one.healthy(dead)) for one in components)
        missing = sum(self._expected(role=one.name, all_of_it=one.expected) for one in components) - there - len(dead)
        return missing <= 0 or now - self._enough_since > GATHER_PATIENCE_S

    def is_hopeless(self, now: float) -> bool:
        """Whether there will never be enough."""
        # After a takeover the record may call nodes dead that only lost their supervisor; give them time to come.
        settle_s = self.job.plan.heartbeat_timeout_s + GATHER_PATIENCE_S
        settled = not self.job.epoch or now - self._since > settle_s
        too_few = any(
            self._expected(role=one.name, all_of_it=one.expected)
            - sum(role_of(place) == one.name for place in self.job.dead)
            < one.wanted
            for one in self.job.components
        )
        srun_gone = any(one.launch is not None and one.launch.gone for one in self.job.components)
        return srun_gone or (settled and too_few) or now - self._since > self.job.plan.start_timeout_s

    def _expected(self, *, role: str, all_of_it: int) -> int:
        if not self.job.epoch:
            return all_of_it
        return sum(role_of(place) == role for place in self.known | set(self.job.dead))

    def give_up(self) -> tuple[Group, Decision] | None:
        """What becomes of the job, and the group that could not start; None while that is not clear yet."""
        if not self._asked_why:
            # If the job is being ended, our own SIGTERM is still on its way.
            self._asked_why = True
            self.job.ending.inquire(Reason.RUMOUR)
        if self.job.ending.asking or self.job.ending.cause is not None or self._launched_again():
            return None
        components, dead = self.job.components, self.job.dead
        short = [one for one in components if len(one.healthy(dead)) < one.wanted] or list(components)
        said = "\n".join(one.launch.text.strip() for one in short if one.launch is not None)
        text = "; ".join(one.short_of(self.job.dead) for one in short)
        LOG.error("agents are missing: %s", text)
        if self.job.dead:
            text += f"; failed: {', '.join(f'{place} ({why})' for place, why in sorted(self.job.dead.items()))}"
        text += f"\nsrun said: {said}" if said.strip() else ""
        gone = ",".join(sorted(nodes_of(self.job.dead)))
        failure = RankExit(rank=-1, node=gone, code=71, epoch_s=time.time(), text=text)
        # A folder that is not shared will not be shared after a requeue either.
        hopeless = slurm_side.CANNOT_SEE in said or (MISSING in said and not self.job.links.members)
        group = short[0].groups[0]
        if hopeless or not self.job.dead:
            decision = Decision(
                action=Action.END, cause="start", state="FAILED_INFRA", failure=failure, budget=group.budget
            )
            return group, decision
        symptom = Symptom(cause="start", failure=failure, failures=(failure,), nodes=tuple(self.job.dead))
        outcome = Outcome(world_size=group.world_size, exits=(failure,))
        decision = answer(symptom, outcome, group.budget, group.limits, now=time.time(), healthy=0, wanted=group.wanted)
        return group, decision

    def _launched_again(self) -> bool:
        """Start those sruns again that slurmd would not serve; whether there were any."""
        failed = [
            component.launch
            for component in self.job.components
            if component.launch is not None
            and slurm_side.LAUNCH_FAILED in component.launch.text
            and not component.healthy({})
            and component.launch.count < LAUNCHES_MAX
        ]
        if not failed:
            return False
        # slurmd may refuse a job that was requeued within the same second; the next second is another matter.
        LOG.warning("srun could not launch the agents; trying again")
        time.sleep(1.0)
        for launch in failed:
            launch.start()
        self._since = time.monotonic()
        return True
