"""What an adapter's description says: whose it is and which device, or that it is no host's at all. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache

from trainmaster.errors import FabricError
from trainmaster.fabric.model import Fabric, Hca, Kind

# What firmware calls itself until rdma-ndd has given it the host's name, and names that many hosts share.
_FIRMWARE = re.compile(r"MT\d+\b|.*\b(Mellanox|NVIDIA|ConnectX|InfiniHost|Voltaire|HFI|hfi1)\b", re.IGNORECASE)
_NOBODY = {"localhost", "(none)", "none", "unknown", "node", "host", "n/a", "-"}
# The words of storage, gateways and managers, as whole parts of a name; only used where Slurm's own list is not known.
_SERVICE = re.compile(
    r"(^|[-_.\d])(ufm|opensm|sm|gw|gateway|skyway|oss|mds|mgs|ost|mdt|nsd|sfa|ddn|exa|vast|cnode|dnode|weka|lustre|gpfs|"
    r"storage|stor|nas|nfs|login|mgmt|bcm|head)([-_.\d]|$)",
    re.IGNORECASE,
)


@cache
def read_description(text: str) -> tuple[str, str, Kind]:
    """Host, device and kind from a NodeDescription such as "dgx004 mlx5_2"; no host when it names none.

    >>> read_description("dgx004.cluster.example mlx5_2")
    ('dgx004', 'mlx5_2', <Kind.HOST: 'host'>)
    >>> read_description("Mellanox Technologies Aggregation Node")[2]
    <Kind.AGGREGATION: 'aggregation'>
    >>> read_description("MT4129 ConnectX7   Mellanox Technologies")[0]
    ''
    """
    words = text.split()
    if "Aggregation Node" in text:
        return "", "", Kind.AGGREGATION
    # Eight adapters that all call themselves "node HCA-1" are not one node; nor has a host's name a blank or a quote.
    if not words or _FIRMWARE.match(text) or words[0].lower() in _NOBODY or len(words) > 3:
        return "", "", Kind.HOST
    host = words[0].partition(".")[0]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", host):
        return "", "", Kind.HOST
    return host, " ".join(words[1:]), Kind.SERVICE if _SERVICE.search(host) else Kind.HOST


def guid_text(text: str) -> str:
    """A GUID as 0x and 16 hex digits, from any of the ways in which it is written; empty when it is none.

    >>> guid_text("248a:0703:00AB:cdef"), guid_text("0x10"), guid_text("H-10")
    ('0x248a070300abcdef', '0x0000000000000010', '')
    """
    digits = text.strip().lower().removeprefix("0x").replace(":", "")
    return f"0x{digits.zfill(16)}" if re.fullmatch(r"[0-9a-f]{1,16}", digits) else ""


def read_guids(text: str) -> dict[str, tuple[str, str]]:
    """GUID -> (host, device) from lines `HOST DEVICE GUID`, or from a node-name map of lines `GUID "HOST DEVICE"`.

    The nodes themselves know: `for f in /sys/class/infiniband/*/node_guid` on each.

    Raises:
        FabricError: a line is neither.
    """
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].replace('"', " ").split()
        if not words:
            continue
        first, last = guid_text(words[0]) if words[0].lower().startswith("0x") else "", guid_text(words[-1])
        if first and len(words) >= 2:
            found[first] = (words[1].partition(".")[0], " ".join(words[2:]))
        elif last and len(words) in (2, 3):
            found[last] = (words[0].partition(".")[0], words[1] if len(words) == 3 else "")
        else:
            raise FabricError(
                f"line {number} of the list of GUIDs cannot be read: {line.strip()[:80]!r}",
                hint='write "HOST DEVICE GUID", such as n001 mlx5_0 248a:0703:00ab:cdef',
            )
    return found


def identify(
    fabric: Fabric, *, guids: Mapping[str, tuple[str, str]] | None = None, known: Collection[str] = ()
) -> Fabric:
    """The fabric with hosts for adapters whose description names none, and with what is no compute node marked so.

    Args:
        fabric: as its source tells it.
        guids: GUID -> (host, device), as the nodes tell it; a description that a node's own word contradicts is wrong.
        known: the nodes that Slurm has; every other host is a service. Empty: judge by names.
    """
    names = set(known)
    by_guid = guids or {}

    def seen(hca: Hca) -> Hca:
        host, device = by_guid.get(hca.guid, (hca.host, hca.device))
        kind = hca.kind
        if names and kind is not Kind.AGGREGATION:
            kind = Kind.HOST if host in names or not host else Kind.SERVICE
        elif hca.guid in by_guid:
            kind = Kind.HOST
        same = (host, device, kind) == (hca.host, hca.device, hca.kind)
        return hca if same else replace(hca, host=host, device=device, kind=kind)

    return replace(fabric, hcas=tuple(map(seen, fabric.hcas)))
