"""One role of a job, or a job without roles as its only one: its agents' places and its groups of ranks.

Standard library only.
"""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from trainmaster.errors import FabricError
from trainmaster.fabric import link_health
from trainmaster.fabric.crossings import Score
from trainmaster.launcher import placement as placements
from trainmaster.launcher import plan as plans
from trainmaster.launcher import record, runner
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.supervise import budget, distrust, slurm_side, usual
from trainmaster.launcher.supervise.copy_book import CopyBook
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.launch import Launch
from trainmaster.launcher.supervise.links import Links, place_of
from trainmaster.launcher.supervise.placement import first_free, keep_places, lay_out, score_of
from trainmaster.launcher.supervise.rank_step import StepGroup
from trainmaster.launcher.supervise.takeover import Post

LOG = logging.getLogger("trainmaster")
_EXCHANGED = ("swap", "at_restart")


class Component:
    """Places, agents and groups of one role."""

    def __init__(self, plan: Plan, links: Links, role: RolePlan | None = None) -> None:
        self.plan = plan
        self.role = role
        self.name = role.name if role is not None else ""
        self._links = links
        self._agents_a_node = plan.tasks_per_node if plan.agent_per_rank else 1
        replicas = range(plan.nodes * plan.tasks_per_node) if plan.agent_per_rank else (None,)
        kind = Group if plan.runner == runner.AGENT else StepGroup
        self.groups = tuple(kind(plan, links, role=role, replica=index) for index in replicas)
        self.copies = CopyBook(links, world_size=plan.nodes * plan.tasks_per_node, tasks_per_node=plan.tasks_per_node)
        self.launch: Launch | None = None
        self.links_told: dict[str, float] = {}
        """Places with bad links when places were last chosen, for the record."""
        self._axes = placements.axes(plan.placement, plan.tasks_per_node)

    @classmethod
    def all_of(cls, run_dir: Path, plan: Plan, roles: Iterable[RolePlan], links: Links) -> tuple["Component", ...]:
        """The components of a job: one for each role, or the one of a job without roles."""
        made = tuple(cls(plans.read(run_dir / role.name), links, role) for role in roles)
        return made or (cls(plan, links),)

    def recall(self, run_dir: Path, events: Sequence[record.Event], *, attempt: int) -> None:
        """Let its groups go on where their part of the record ends."""
        for group in self.groups:
            own = [event for event in events if (event.role, event.replica) == (self.name, group.replica)]
            ran = [event for event in own if event.attempt == attempt and event.state == "RUNNING"]
            # Which place of a node a replica had is of no use to whoever takes over: all restart.
            known = ran[-1].nodes if ran and group.replica is None else ()
            steps = [event.step for event in own if event.step is not None]
            furthest = record.last_step(run_dir, own) if self.role is None else max(steps, default=None)
            self._recall_slow(group, own)
            group.budget = budget.recall(events, role=self.name, replica=group.replica, attempt=attempt)
            group.recall(
                number=max((event.cycle for event in ran), default=-1),
                places=tuple(place for node in known for place in self.places_on(node)),
                furthest=-1 if furthest is None else furthest,
                saved=max((int(event.detail.get("saved", -1)) for event in own), default=-1),
                leaving=self._found_slow(own, attempt=attempt),
            )
            self._recall_values(group, run_dir / self.name, own, attempt=attempt)

    def _recall_values(self, group: Group, folder: Path, own: Sequence[record.Event], *, attempt: int) -> None:
        """What was usual of reported values, and a divergence that nobody has gone on from yet."""
        if group.replica is None:
            group.values.recall(usual.read(folder))
        for event in own:
            if event.state == "DIVERGED" and event.attempt == attempt:
                self.copies.distrust(event.cycle)
        last, unjudged = distrust.recall(own)
        if last is None:
            return
        group.distrusted_from = int(last.detail[distrust.FROM])
        if unjudged is not None and last.attempt == attempt:
            group.cycle.diverged, group.cycle.diverged_told = unjudged, True

    def _found_slow(self, own: Sequence[record.Event], *, attempt: int) -> tuple[str, ...]:
        """Places found slow in the last cycle that were to be exchanged; not for ranks that are slow anywhere."""
        found: list[str] = []
        for event in own:
            if event.state == "RUNNING" or (event.state == "RESTARTING" and event.cause != "supervisor_death"):
                found = []
            elif event.state == "STRAGGLER" and event.attempt == attempt and event.detail.get("answer") in _EXCHANGED:
                everywhere = event.detail.get("slow_everywhere", ())
                told = event.detail.get("stragglers", ())
                nodes = [one["node"] for one in told if one["rank"] not in everywhere]
                found += [place for node in nodes for place in self.places_on(node)]
        return tuple(dict.fromkeys(found))

    @staticmethod
    def _recall_slow(group: Group, own: Sequence[record.Event]) -> None:
        """Where each rank was found slow first."""
        for event in own:
            for one in event.detail.get("stragglers", ()) if event.state == "STRAGGLER" else ():
                group.slow_at.setdefault(int(one["rank"]), str(one["node"]))

    @property
    def wanted(self) -> int:
        """Places that its groups need together."""
        return sum(group.wanted for group in self.groups)

    @property
    def expected(self) -> int:
        """Agents that are started for it."""
        return (self.plan.nodes + self.plan.spares) * self._agents_a_node

    def places_on(self, node: str) -> tuple[str, ...]:
        """Its places on a node."""
        slots = range(self._agents_a_node) if self.plan.agent_per_rank else (None,)
        return tuple(place_of(node, role=self.name, slot=slot) for slot in slots)

    def healthy(self, dead: Collection[str]) -> dict[str, str]:
        """Topology address by place, of all that can run ranks. `dead`: places that must not be used."""
        return {
            place: member.topology
            for place, member in self._links.members.items()
            if member.role == self.name and place not in dead
        }

    def open_to(self, group: Group, dead: Collection[str]) -> dict[str, str]:
        """Those of them that no other group uses."""
        others = [other for other in self.groups if other is not group and other.phase != "done"]
        used = {place for other in others for place in other.cycle.places}
        return {place: address for place, address in self.healthy(dead).items() if place not in used}

    def choose(self, group: Group, dead: Collection[str]) -> tuple[str, ...] | None:
        """Places for a group's next cycle in rank order, or None when there are too few."""
        there = self.open_to(group, dead)
        self.links_told = links = self._bad_links(there)
        if self.role is None and self.copies.whole(there) is None:
            layout = lay_out(there, group.wanted, running=group.cycle.places, axes=self._axes, links=links)
            return None if layout is None else layout.nodes
        if group.replica is None:
            # A replica keeps its index, and with it what it holds; a rank the copies that its node has in memory.
            return keep_places(there, group.wanted, before=group.cycle.places, axes=self._axes, links=links)
        return first_free(there, before=group.cycle.places, links=links)

    def _bad_links(self, places: Iterable[str]) -> dict[str, float]:
        """The score of each place whose node has links that are not sound, by the site's file as it is now."""
        file = Path(self.plan.link_health or link_health.DEFAULT_FILE)
        if not file.exists():
            return {}
        try:
            scores = link_health.read(file, now_s=time.time()).scores()
        except FabricError as error:
            LOG.warning("bad links are not known: %s", error.message)
            return {}
        node_of = {place: self._links.members[place].node for place in places}
        return {place: scores[node] for place, node in node_of.items() if node in scores}

    def score(self, group: Group) -> Score | None:
        """How a group's nodes lie in the fabric; None where Slurm knows no switches."""
        known = {place: member.topology for place, member in self._links.members.items()}
        if group.replica is not None or any(place not in known for place in group.cycle.places):
            return None
        return score_of(known, group.cycle.places, self._axes)

    def spares(self, dead: Collection[str]) -> tuple[str, ...]:
        """Places that could take over and run nothing."""
        used = {place for group in self.groups for place in group.cycle.places}
        return tuple(place for place in self.healthy(dead) if place not in used)

    def group_at(self, place: str) -> Group | None:
        """The group that runs at a place, if one does."""
        there = (group for group in self.groups if place in group.cycle.places and group.phase != "done")
        return next(there, None)

    @property
    def is_ready(self) -> bool:
        """Whether those that come after it may start."""
        return all(group.is_ready for group in self.groups)

    def command(self, *, number: int, run_dir: Path, post: Post) -> list[str]:
        """The srun that starts its agents. `number`: which component of a heterogeneous job it is."""
        if self.role is None:
            return slurm_side.agents_command(self.plan, post)
        return slurm_side.agents_command(self.plan, post, job_dir=str(run_dir), component=number)

    @property
    def label(self) -> str:
        """For messages: " of role 'trainer'", or nothing."""
        return f" of role {self.name!r}" if self.name else ""

    def short_of(self, dead: Mapping[str, str]) -> str:
        """How many of its places are there, of those that it needs."""
        return f"{len(self.healthy(dead))} of {self.wanted} needed {self._unit}{self.label} could be started"

    @property
    def _unit(self) -> str:
        return "agents" if self.plan.agent_per_rank else "nodes"
