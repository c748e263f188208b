"""How many nodes we may still take out: the guarantee of each partition, the cap, and what the breaker bears. Pure."""

from dataclasses import dataclass, field, replace

from trainmaster.controller import breaker, snapshot
from trainmaster.controller.memory import OURS, Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot


def out_because_of_us(look: Snapshot, memory: Memory) -> frozenset[str]:
    """Nodes that are out of service by our word."""
    return frozenset(
        name
        for name, record in memory.nodes.items()
        if record.state in OURS and name in look.nodes and not snapshot.in_service(look.nodes[name])
    )


def cap(look: Snapshot, policy: Policy) -> int:
    """How many nodes may be out because of us at once; a small fleet may always lose one."""
    return max(1, int(policy.drains.share_max * len(look.nodes)))


@dataclass(slots=True)
class Ledger:
    """What is left while a plan is made; each drain that is granted takes its part."""

    look: Snapshot
    policy: Policy
    out: set[str]
    window: int
    """Automatic drains in the breaker's window."""
    taken: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "Ledger":
        """To try something on."""
        return replace(self, out=set(self.out), taken=dict(self.taken))

    def take(self, tried: "Ledger") -> None:
        """What was tried holds."""
        self.out, self.taken, self.window = tried.out, tried.taken, tried.window

    def refuses(self, name: str, *, planned: bool, automatic: bool = True) -> tuple[str, str] | None:
        """The rule and the words against taking this node out; None when it may be, which is then counted.

        What is not `automatic`, as maintenance that a person has started, says nothing of the fleet's health: the
        breaker does not count it.
        """
        node = self.look.nodes[name]
        serving = snapshot.in_service(node)
        if automatic and self.window + 1 > breaker.allowance(len(self.look.nodes), self.policy.drains):
            return "I3", f"{self.window} drains within {self.policy.drains.breaker_window_s / 60:.0f} min already"
        if serving and len(self.out) + 1 > cap(self.look, self.policy):
            return "I2", f"{len(self.out)} nodes are out because of us, and {cap(self.look, self.policy)} may be"
        for partition in snapshot.groups(node) if serving else ():
            promised = self.policy.guarantee.get(partition)
            if promised is None:
                continue
            least = promised.nodes + (promised.failure_buffer if planned else 0)
            left = self.look.available(partition) - self.taken.get(partition, 0) - 1
            if planned and left < least:
                return "I1", f"{partition} would have {left} nodes, and {least} are promised or kept for failures"
        self.window += automatic
        if serving:
            self.out.add(name)
            for partition in snapshot.groups(node):
                self.taken[partition] = self.taken.get(partition, 0) + 1
        return None


def ledger(look: Snapshot, memory: Memory, policy: Policy, now: float) -> Ledger:
    """What may still be taken at this look."""
    return Ledger(
        look=look,
        policy=policy,
        out=set(out_because_of_us(look, memory)),
        window=len(breaker.automatic(memory.drains, policy.drains, now)),
    )
