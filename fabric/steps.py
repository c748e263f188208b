"""What steps are told of the topology, and whether it is what slurmctld has.

Each slurmd reads topology.conf itself and tells its steps the switches above it (SLURM_TOPOLOGY_ADDR), by which ranks
are ordered. When slurmctld alone is started anew, they keep the old one; `scontrol reconfigure` reaches them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trainmaster.errors import FabricError, SlurmError
from trainmaster.fabric.model import Unit, naturally
from trainmaster.fabric.topology_conf import fold, read_config, units_of
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.run import run

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A node whose slurmd has another topology than slurmctld."""

    node: str
    told: str
    """The switches that its steps are told, from the top: "pod01.su001"."""
    has: str
    """Those that slurmctld has."""

    def __str__(self) -> str:
        return f"{self.node}: its steps are told {self.told or 'no switch'}, and slurmctld has {self.has or 'none'}"


def stale(topology: str, told: Mapping[str, str]) -> tuple[Stale, ...]:
    """The nodes whose steps are told something else. Pure.

    Args:
        topology: what slurmctld has, as `scontrol show topology` prints it.
        told: SLURM_TOPOLOGY_ADDR by node.
    """
    paths: dict[str, str] = {}

    def walk(unit: Unit, above: str) -> None:
        here = f"{above}.{unit.name}" if above else unit.name
        paths.update(dict.fromkeys(unit.nodes, here))
        for child in unit.children:
            walk(child, here)

    if "SwitchName=" in topology:
        for root in units_of(read_config(topology)):
            walk(root, "")
    found = []
    for node in naturally(told):
        switches = told[node].removesuffix(node).rstrip(".")
        if switches != paths.get(node, ""):
            found.append(Stale(node=node, told=switches, has=paths.get(node, "")))
    return tuple(found)


def ask(client: Commands) -> tuple[tuple[Stale, ...], tuple[str, ...]]:
    """Run a step on every idle node; those with another topology, and those that were asked.

    Raises:
        FabricError: no node is idle, or the step does not run.
    """
    idle = [node.name for node in client.nodes() if node.state == "IDLE"]
    if not idle:
        raise FabricError("no node is idle, so none can be asked what its steps are told")
    words = ["--ntasks-per-node=1", f"--nodes={len(idle)}", f"--nodelist={fold(idle)}", "--time=1", "--immediate=60"]
    try:
        said = run(["srun", *words, "sh", "-c", "echo $SLURMD_NODENAME $SLURM_TOPOLOGY_ADDR"], timeout_s=_TIMEOUT_S)
    except SlurmError as error:
        raise FabricError(f"could not ask {len(idle)} idle nodes what their steps are told: {error.message}") from None
    lines = [line.split() for line in said.stdout.splitlines()]
    told = {line[0]: line[1] if len(line) > 1 else line[0] for line in lines if line}
    return stale(client.topology(), told), tuple(naturally(told))
