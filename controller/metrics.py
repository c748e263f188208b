"""What a Prometheus server reads of the controller, over HTTP on a loopback address. `alerts.yml` has rules for it."""

import logging
import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from trainmaster.controller.acts import Act, Plan
from trainmaster.controller.memory import Memory, NodeState
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.errors import ControllerError

LOG = logging.getLogger("trainmaster.controller")
_PREFIX = "trainmaster_controller"
_TICK_S = (0.1, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counts what a controller does. Names begin with `trainmaster_controller_`; times are in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self._ticks = Counter(f"{_PREFIX}_ticks", "Looks at the cluster, by how they went", ["outcome"], registry=own)
        for outcome in ("ok", "no_answer", "failed"):
            self._ticks.labels(outcome)
        self._tick_s = Histogram(
            f"{_PREFIX}_tick_seconds",
            "From asking Slurm to the last act",
            buckets=_TICK_S,
            registry=own,
        )
        self._looked = Gauge(f"{_PREFIX}_last_look_timestamp_seconds", "When Slurm last answered", registry=own)
        self._acts = Counter(
            f"{_PREFIX}_acts", "Acts, by kind and by whether they came true", ["kind", "outcome"], registry=own
        )
        self._open = Gauge(f"{_PREFIX}_open_intents", "Acts that are under way", registry=own)
        self._nodes = Gauge(f"{_PREFIX}_nodes", "Nodes by their state with the controller", ["state"], registry=own)
        self._fleet = Gauge(f"{_PREFIX}_fleet_nodes", "All nodes that Slurm has", registry=own)
        self._jobs = Gauge(
            f"{_PREFIX}_jobs", "Jobs in hand: that wait for their start, or are held", ["state"], registry=own
        )
        self._kept = Gauge(f"{_PREFIX}_kept_reservations", "Reservations in which jobs' nodes are kept", registry=own)
        self._trips = Gauge(f"{_PREFIX}_breaker_tripped", "Whether drains are stopped", ["scope"], registry=own)
        self._refused = Gauge(f"{_PREFIX}_refused", "What the last plan did not do, by rule", ["rule"], registry=own)
        self._headroom = Gauge(
            f"{_PREFIX}_guarantee_headroom_nodes",
            "Nodes in service beyond the promise to a group",
            ["group"],
            registry=own,
        )
        self._delay = Histogram(
            f"{_PREFIX}_release_delay_seconds",
            "From seeing a job in the queue again to its release, the waits between its starts included",
            buckets=(1, 2, 5, 10, 30, 60, 120, 300, 900),
            registry=own,
        )

    def serve(self, listen: str) -> tuple[WSGIServer, threading.Thread]:
        """Answer at `ADDRESS:PORT`. Raises ControllerError when that cannot be had."""
        address, _, port = listen.rpartition(":")
        try:
            served = start_http_server(int(port), addr=address.strip("[]"), registry=self.registry)
        except (OSError, ValueError) as error:
            raise ControllerError(
                f"could not serve metrics at {listen}: {error}",
                hint='name another ADDRESS:PORT as metrics in the policy, or metrics = "" for none',
            ) from None
        LOG.info("metrics: http://%s/metrics", listen)
        return served

    def looked(self, look: Snapshot, plan: Plan, memory: Memory, policy: Policy, *, took_s: float, opened: int) -> None:
        """After a tick that came to its end."""
        self._ticks.labels("ok").inc()
        self._tick_s.observe(took_s)
        self._looked.set_to_current_time()
        self._open.set(opened)
        self._fleet.set(len(look.nodes))
        self._kept.set(len(memory.kept))
        states = [record.state for record in memory.nodes.values()]
        for state in NodeState:
            if state is not NodeState.OK:
                self._nodes.labels(state.value).set(states.count(state))
        self._jobs.labels("waiting").set(sum(1 for job in memory.jobs.values() if job.awaited))
        self._jobs.labels("held").set(sum(1 for job in memory.jobs.values() if job.held))
        for scope in ("all", "cause", "leaf"):
            self._trips.labels(scope).set(sum(1 for trip in plan.trips if trip.scope == scope))
        rules = [one.rule for one in plan.refused]
        for number in range(1, 13):
            self._refused.labels(f"I{number}").set(rules.count(f"I{number}"))
        for group, promised in policy.guarantee.items():
            self._headroom.labels(group).set(look.available(group) - promised.nodes)

    def missed(self, outcome: str) -> None:
        """After a tick in which Slurm did not answer (no_answer), or that failed."""
        self._ticks.labels(outcome).inc()

    def closed(self, act: Act, state: str, *, waited_s: float | None = None) -> None:
        """An act has come true, or was given up; `waited_s`: of a release, since its job was seen to wait."""
        self._acts.labels(act.kind.value, state).inc()
        if waited_s is not None:
            self._delay.observe(max(0.0, waited_s))
