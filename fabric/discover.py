"""From texts to one fabric: which source each is of, what they say together."""

from collections.abc import Collection, Mapping, Sequence

from trainmaster.errors import FabricError
from trainmaster.fabric.describe import identify
from trainmaster.fabric.join import join
from trainmaster.fabric.model import Fabric
from trainmaster.fabric.sources.ibnetdiscover import IBNETDISCOVER
from trainmaster.fabric.sources.ibnetdiscover_ports import IBNETDISCOVER_PORTS
from trainmaster.fabric.sources.lldp import LLDP
from trainmaster.fabric.sources.plain import PLAIN
from trainmaster.fabric.sources.saved import SAVED
from trainmaster.fabric.sources.slurm_topology import SLURM_TOPOLOGY
from trainmaster.fabric.sources.source import Source
from trainmaster.fabric.sources.ufm import UFM

# The first that recognises a text reads it; PLAIN takes nearly everything, so it comes last.
SOURCES: tuple[Source, ...] = (SAVED, IBNETDISCOVER, IBNETDISCOVER_PORTS, SLURM_TOPOLOGY, UFM, LLDP, PLAIN)
_HEAD = 65_536


def read(text: str, *, source: str = "") -> Fabric:
    """The fabric of one text.

    Args:
        text: what a source printed.
        source: the name of one of SOURCES; empty to find out.

    Raises:
        FabricError: no source knows such a text, or it is broken.
    """
    chosen = [one for one in SOURCES if (one.name == source if source else one.recognise(text[:_HEAD]))]
    if not chosen:
        start = text.lstrip()[:60].splitlines()
        begins = f"begins with {start[0]!r}" if start else "is empty"
        kinds = "\n".join(f"        {one.name:<16}{one.help}" for one in SOURCES)
        raise FabricError(f"this describes no fabric: it {begins}", hint=f"what can be read:\n{kinds}")
    return chosen[0].read(text)


def discover(
    texts: Sequence[str],
    *,
    source: str = "",
    guids: Mapping[str, tuple[str, str]] | None = None,
    slurm_nodes: Collection[str] = (),
) -> Fabric:
    """One fabric of all texts: subnets, planes, or several looks at one.

    Args:
        texts: what sources printed.
        source: which, when it is not to be found out.
        guids: GUID -> (host, device), for adapters whose description names no host.
        slurm_nodes: Slurm's nodes; any other host is a service. Empty: judge by names.

    Raises:
        FabricError: a text cannot be read.
    """
    return identify(join([read(text, source=source) for text in texts]), guids=guids, known=slurm_nodes)
