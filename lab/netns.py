"""A network of its own for every node of a lab, so that a node can fall silent as real ones do: without a last packet.

On loopback the kernel resets a dead process's connections at once, and its peers know. When a real node loses power
they hear nothing. So a lab may give each node a network namespace that hangs on a bridge by a cable (a veth pair);
cutting the cable before killing the node leaves no FIN and no RST. slurmd also gets its own pid and host name
namespaces: killing the node's first process takes everything on it down, whatever it did to hide.

    bridge tm<id>             198.18.x.1/22   slurmctld, sbatch and srun on the host use this address
    cable  tm<id>v<index>     -> eth0 in namespace tm<id>-<index>, 198.18.x.2 and up

Only root can do this. Addresses are from 198.18.0.0/15, which RFC 2544 sets aside for tests; each lab takes a part of
it that nothing on this machine uses. Every command goes to `ip` of iproute2.
"""

import fcntl
import ipaddress
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainmaster.errors import LabError

TEST_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
# 1022 addresses: more nodes than one machine can run in namespaces.
_PREFIX_LENGTH = 22
_NODES_MAX = 2 ** (32 - _PREFIX_LENGTH) - 3
_NAMESPACES = Path("/run/netns")
_LOCK = Path("/run/trainmaster-lab-netns.lock")
_TIMEOUT_S = 60.0
# Written on each bridge, followed by the lab's folder.
_ALIAS = "trainmaster-lab:"

# The first process of a node. It must be a shell that stays: as init of the pid namespace it collects the children that
# slurmd and slurmstepd orphan, and the node lives on if slurmd crashes. $0 is the node's name, $1 the file of names,
# the rest is slurmd.
_INIT = 'hostname "$0"; mount --bind "$1" /etc/hosts; shift; "$@" & while :; do wait; sleep 1; done'


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """How one node hangs on the bridge: its namespace, the bridge's end of its cable, its address."""

    node_name: str
    namespace: str
    link: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The bridge of one lab and the cables of its nodes; `address` is the host's on the bridge."""

    lab_id: str
    bridge: str
    address: str
    hosts_file: str
    """What the nodes see as /etc/hosts: their names resolve on the nodes, though not on the host."""
    cables: tuple[Cable, ...]

    def cable(self, node_name: str) -> Cable:
        """The cable of a node."""
        for cable in self.cables:
            if cable.node_name == node_name:
                return cable
        raise LabError(f"node {node_name!r} has no cable in network {self.bridge}")

    def command_prefix(self, node_name: str) -> tuple[str, ...]:
        """What to write before slurmd's command line so that it runs as that node, in the foreground.

        The process so started stays outside the namespaces; killing it takes the whole node down.
        """
        cable = self.cable(node_name)
        enter = ("nsenter", f"--net={_NAMESPACES / cable.namespace}")
        isolate = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        return (*enter, *isolate, "bash", "-c", _INIT, node_name, self.hosts_file)

    def as_json(self) -> dict[str, Any]:
        """Plain values for lab.json."""
        return asdict(self)


def from_json(values: Mapping[str, Any]) -> Network:
    """The network that `Network.as_json` wrote down."""
    return Network(**{**values, "cables": tuple(Cable(**cable) for cable in values["cables"])})


def plan(
    lab_id: str, node_names: Sequence[str], *, folder: Path, taken: Sequence[ipaddress.IPv4Network] = ()
) -> Network:
    """Names and addresses of a lab's network, clear of the ranges that this machine already uses.

    Args:
        lab_id: 1 to 6 letters or digits, unlike those of other labs on this machine.
        node_names: the lab's nodes.
        folder: the lab's folder, which will hold the file of names.
        taken: ranges that addresses and routes of this machine are in.
    """
    assert re.fullmatch(r"[0-9a-z]{1,6}", lab_id), f"{lab_id!r} does not fit into an interface name of 15 characters"
    if len(node_names) > _NODES_MAX:
        raise LabError(f"{len(node_names)} nodes do not fit into one lab network, which holds {_NODES_MAX}")
    for subnet in TEST_RANGE.subnets(new_prefix=_PREFIX_LENGTH):
        if not any(subnet.overlaps(other) for other in taken):
            break
    else:
        raise LabError(f"all of {TEST_RANGE} is in use on this machine", hint="`ip route` shows by what")
    hosts = subnet.hosts()
    address = str(next(hosts))
    cables = tuple(
        Cable(node_name=name, namespace=f"tm{lab_id}-{index}", link=f"tm{lab_id}v{index}", address=str(host))
        for index, (name, host) in enumerate(zip(node_names, hosts, strict=False))
    )
    return Network(
        lab_id=lab_id, bridge=f"tm{lab_id}", address=address, hosts_file=str(folder / "hosts"), cables=cables
    )


def hosts_text(network: Network, *, host: str, machine: str) -> str:
    """The nodes' /etc/hosts: the machine's own, but each node and the machine itself under its address on the bridge.

    Args:
        network: the lab's network.
        host: this machine's name. That name often means loopback here, which on a node would be the node itself.
        machine: the text of this machine's /etc/hosts.
    """
    ours = {host, *(cable.node_name for cable in network.cables)}
    kept = [line for line in machine.splitlines() if not ours.intersection(line.partition("#")[0].split()[1:])]
    lines = [f"{network.address} {host}", *(f"{cable.address} {cable.node_name}" for cable in network.cables)]
    # Dropping a line may have taken the name localhost with it.
    return "\n".join([*kept, "127.0.0.1 localhost", *lines]) + "\n"


def create(lab_id: str, node_names: Sequence[str], *, folder: Path) -> Network:
    """Build the bridge, the namespaces and the cables; a half-built network is taken down again.

    Args:
        lab_id: as for `plan`.
        node_names: the lab's nodes.
        folder: the lab's folder, written on the bridge so that `sweep` can tell when its lab has gone.
    """
    _require()
    # Two labs that start in the same second must not choose the same range.
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        network = plan(lab_id, node_names, folder=folder, taken=_taken())
        if network.bridge in _bridges():
            raise LabError(
                f"bridge {network.bridge} exists already", hint="`trainmaster lab down` removes a lab's bridge"
            )
        _ip(
            f"link add {network.bridge} type bridge",
            f'link set {network.bridge} alias "{_ALIAS}{folder}"',
            f"addr add {network.address}/{_PREFIX_LENGTH} dev {network.bridge}",
            f"link set {network.bridge} up",
        )
    try:
        machine = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace")
        names = hosts_text(network, host=socket.gethostname().partition(".")[0], machine=machine)
        Path(network.hosts_file).write_text(names, encoding="utf-8")
        for cable in network.cables:
            _ip(
                f"netns add {cable.namespace}",
                f"link add {cable.link} type veth peer name eth0 netns {cable.namespace}",
                f"link set {cable.link} master {network.bridge} up",
            )
            _ip(
                "link set lo up",
                f"addr add {cable.address}/{_PREFIX_LENGTH} dev eth0",
                "link set eth0 up",
                namespace=cable.namespace,
            )
    except (LabError, OSError):
        destroy(lab_id)
        raise
    return network


def cut(cable: Cable) -> None:
    """Cut a node's cable: from now on nothing it sends arrives and nothing reaches it."""
    _ip(f"link set {cable.link} down")


def mend(cable: Cable) -> None:
    """Plug a node's cable in again."""
    _ip(f"link set {cable.link} up")


def destroy(lab_id: str) -> None:
    """Remove what `create` made, as far as it is there. Kill the nodes' processes first: they hold the namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return
    commands = [f"link del {link}" for link in _links() if re.fullmatch(rf"tm{lab_id}(v\d+)?", link)]
    if _NAMESPACES.is_dir():
        names = (path.name for path in _NAMESPACES.iterdir())
        commands += [f"netns del {name}" for name in names if re.fullmatch(rf"tm{lab_id}-\d+", name)]
    if commands:
        _ip(*commands)


def sweep() -> tuple[str, ...]:
    """Remove the networks of labs whose folder has gone; returns their ids."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return ()
    gone = []
    for bridge, alias in _bridges().items():
        if alias.startswith(_ALIAS) and not Path(alias.removeprefix(_ALIAS)).exists():
            gone.append(bridge.removeprefix("tm"))
            destroy(gone[-1])
    return tuple(gone)


def _require() -> None:
    if os.geteuid() != 0:
        raise LabError("only root can give nodes their own network", hint="leave netns out, or start the lab with sudo")
    for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux"), ("bash", "bash")):
        if shutil.which(tool) is None:
            raise LabError(f"there is no `{tool}` on this machine", hint=f"install the package {package}")


def _ip(*commands: str, namespace: str | None = None) -> str:
    """Run lines of `ip -batch`, in a namespace if one is named; LabError with ip's own words."""
    argv = ["ip", "-4", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(
        argv, input="\n".join(commands) + "\n", capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    if done.returncode != 0:
        raise LabError(f"`ip` refused one of {list(commands)}: {done.stderr.strip()}")
    return done.stdout


def _links() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir()]


def _bridges() -> dict[str, str]:
    """Each bridge that a lab may have made, with the alias that says for which folder."""
    found = {}
    for path in Path("/sys/class/net").iterdir():
        if (path / "bridge").is_dir() and path.name.startswith("tm"):
            found[path.name] = (path / "ifalias").read_text(encoding="utf-8").strip()
    return found


def _taken() -> list[ipaddress.IPv4Network]:
    """Every IPv4 range that an address or a route of this machine is in, but for the default route."""
    words = _ip("addr show", "route show table all").split()
    found = []
    for word in words:
        if re.fullmatch(r"\d+\.\d+\.\d+\.\d+(/\d+)?", word):
            network = ipaddress.IPv4Network(word, strict=False)
            if network.prefixlen > 0:
                found.append(network)
    return found
