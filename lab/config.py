"""From a lab's plan to the text of its configuration files. Pure: nothing here touches the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ClusterShell.NodeSet import NodeSet
from ClusterShell.RangeSet import RangeSet

from trainmaster import templates
from trainmaster.errors import LabError
from trainmaster.lab.spec import HIGH_PARTITION, NodePlan
from trainmaster.slurm import versions

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where and as whom the lab runs."""

    name: str
    folder: Path
    host: str
    """This machine's name, as `hostname` says it."""
    address: str = LOOPBACK
    """Where slurmctld listens."""
    one_address: bool = True
    """Daemons listen on `address` alone; it must be what `host` resolves to, since that is how Slurm finds it."""
    user: str
    slurm_version: tuple[int, int]
    """(22, 5) and the like."""
    controller_port: int
    dbd_port: int | None = None
    node_ports: Mapping[str, int]
    node_addresses: Mapping[str, str]

    @property
    def conf(self) -> Path:
        """slurm.conf; Slurm looks for its other files beside it."""
        return self.folder / "slurm.conf"

    @property
    def cluster(self) -> str:
        """What Slurm calls the lab: lower case, as slurmdbd stores it."""
        return "".join(c for c in self.name.lower() if c.isalnum()) or "lab"

    @property
    def munge_socket(self) -> Path:
        """Where this lab's munged listens."""
        return self.folder / "munge" / "socket"


# Keys by which the lab finds itself again. Another value would not be a variation of the lab but a broken one.
_OWN_KEYS = frozenset(
    ("SlurmctldHost", "SlurmctldPort", "SlurmUser", "SlurmdUser", "AuthType", "StateSaveLocation", "SlurmdSpoolDir")
)
# Comma lists to which a person adds; the lab needs its own part too.
_MERGED_KEYS = frozenset(("AuthInfo", "SlurmdParameters", "CommunicationParameters"))


def own_settings(site: Site, *, topology: bool) -> dict[str, str]:
    """The settings that follow from where the lab lies; they replace what a site's packages would say."""
    folder = site.folder
    settings = {
        "ClusterName": site.cluster,
        "SlurmctldHost": f"{site.host}({site.address})",
        "SlurmctldPort": str(site.controller_port),
        "SlurmUser": site.user,
        "SlurmdUser": site.user,
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={site.munge_socket}",
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool/%n",
        # pmix keeps a folder per job in TmpFS; nodes that share one fail with "File exists".
        "TmpFS": f"{folder}/tmp/%n",
        "SlurmctldPidFile": f"{folder}/run/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/run/%n.pid",
        "SlurmctldLogFile": f"{folder}/log/slurmctld.log",
        "SlurmdLogFile": f"{folder}/log/%n.log",
        "Prolog": f"{folder}/prolog",
        "Epilog": f"{folder}/epilog",
        "MailProg": "/bin/true",
        # Believe slurm.conf, not the machine, about CPUs and memory.
        "SlurmdParameters": "config_overrides",
    }
    if topology:
        # Left out otherwise: "none" has become "default" and then "flat" from release to release.
        settings["TopologyPlugin"] = "topology/tree"
    if site.one_address:
        # Without these two every daemon would listen on all of the machine's addresses.
        settings["CommunicationParameters"] = "NoCtldInAddrAny,NoInAddrAny"
    if site.dbd_port is not None:
        settings |= {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": site.address,
            "AccountingStoragePort": str(site.dbd_port),
            # With munge, the "password" is the socket of the munged that both sides trust.
            "AccountingStoragePass": str(site.munge_socket),
            "AccountingStorageTRES": "gres/gpu",
            "PriorityType": "priority/multifactor",
        }
    return settings


# What production clusters set, so that what is measured here means something there.
PRODUCTION_SETTINGS: Mapping[str, str] = {
    "SlurmctldTimeout": "120",
    # How long slurmctld waits for a node that does not answer before it calls it DOWN.
    "SlurmdTimeout": "300",
    "MessageTimeout": "30",
    "KillWait": "30",
    "UnkillableStepTimeout": "180",
    "InactiveLimit": "0",
    "MinJobAge": "300",
    "MaxJobCount": "50000",
    "MaxArraySize": "10001",
    # A node that was DOWN because it did not answer returns by itself; one that rebooted on its own stays out until
    # somebody has looked at it. 2 would put that one back into service too.
    "ReturnToService": "1",
    "JobRequeue": "1",
    # The prolog runs on every node at allocation, before anything of the job does.
    "PrologFlags": "Alloc",
    "PrologEpilogTimeout": "300",
    # InfiniBand needs locked memory, and the limit of a login node must not follow the job.
    "PropagateResourceLimitsExcept": "MEMLOCK",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "JobAcctGatherType": "jobacct_gather/linux",
    "JobAcctGatherFrequency": "30",
    "MpiDefault": "none",
    "GresTypes": "gpu",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_Core_Memory",
    "SchedulerType": "sched/backfill",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    # A preempted job gets the signal it asked for with --signal at once; otherwise only SIGTERM, which is no notice.
    # Newer versions call this PreemptParameters=send_user_signal.
    "SlurmctldParameters": "preempt_send_user_signal",
    "SlurmctldDebug": "info",
    "SlurmdDebug": "info",
}


def merge_settings(own: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, str]:
    """The global slurm.conf settings: the lab's, production's, and on top what the person set.

    Keys compare without regard to case, as Slurm does. An empty value removes a key, since Slurm calls `Key=` a parse
    error. Comma lists that the lab needs are joined, not replaced.

    >>> merge_settings({"AuthInfo": "socket=/s"}, {"authinfo": "cred_expire=5"})["AuthInfo"]
    'socket=/s,cred_expire=5'
    """
    merged = {**PRODUCTION_SETTINGS, **own}
    spelling = {key.lower(): key for key in (*merged, *_OWN_KEYS)}
    for given, value in overrides.items():
        key = spelling.get(given.lower(), given)
        if key in _OWN_KEYS:
            raise LabError(f"{key} cannot be set: the lab chooses it", hint=f"leave {given}={value} out")
        if key in _MERGED_KEYS and key in own:
            parts = [*own[key].split(","), *value.split(",")]
            merged[key] = ",".join(dict.fromkeys(part for part in parts if part))
        elif value:
            merged[key] = value
        else:
            merged.pop(key, None)
    return merged


def partition_lines(nodes: Sequence[NodePlan], overrides: Mapping[str, str]) -> tuple[str, ...]:
    """One `PartitionName=` line a kind of node, the first one the default, and the partition that preempts them."""
    settings: dict[str, dict[str, str]] = {}
    for partition, members in groupby(nodes, key=lambda node: node.partition):
        chosen = list(members)
        settings[partition] = {
            "Nodes": _fold(chosen),
            "Default": "NO" if settings else "YES",
            "PriorityTier": "10",
            # Time between the warning (SIGTERM) and the requeue of a preempted job.
            "GraceTime": "30",
            "DefMemPerCPU": str(chosen[0].memory_mib // chosen[0].cpus),
        }
    settings[HIGH_PARTITION] = {
        "Nodes": "ALL",
        "PriorityTier": "100",
        "PreemptMode": "OFF",
        "DefMemPerCPU": str(min(node.memory_mib // node.cpus for node in nodes)),
    }
    common = {"MaxTime": "7-00:00:00", "DefaultTime": "1-00:00:00", "State": "UP"}
    for given, value in overrides.items():
        name, _, key = given.partition(".")
        if name not in settings:
            raise LabError(
                f"{given}={value} sets {key} of a partition that the lab does not have",
                hint=f"its partitions are {', '.join(settings)}",
            )
        settings[name] = {k: v for k, v in settings[name].items() if k.lower() != key.lower()} | {key: value}
    return tuple(
        " ".join([f"PartitionName={name}", *(f"{key}={value}" for key, value in {**common, **pairs}.items() if value)])
        for name, pairs in settings.items()
    )


def node_lines(site: Site, nodes: Sequence[NodePlan], *, own_names: bool) -> tuple[str, ...]:
    """One `NodeName=` line a kind of node.

    Args:
        site: where they run.
        nodes: all nodes.
        own_names: the nodes have host names of their own (network namespaces), not this machine's.
    """
    lines = []
    for _, members in groupby(nodes, key=lambda node: (node.partition, node.features)):
        chosen = list(members)
        first = chosen[0]
        addresses = [site.node_addresses[node.name] for node in chosen]
        ports = RangeSet.fromlist([str(site.node_ports[node.name]) for node in chosen])
        pairs = {
            "NodeName": _fold(chosen),
            "NodeHostname": _fold(chosen) if own_names else site.host,
            "NodeAddr": addresses[0] if len(set(addresses)) == 1 else ",".join(addresses),
            "Port": f"[{ports}]" if len(chosen) > 1 else str(ports),
            "Sockets": "1",
            "CoresPerSocket": str(first.cpus),
            "ThreadsPerCore": "1",
            "RealMemory": str(first.memory_mib),
            "Feature": ",".join(first.features),
        }
        if first.gpus:
            pairs["Gres"] = f"gpu:h100:{first.gpus}"
        lines.append(" ".join(f"{key}={value}" for key, value in pairs.items()))
    return tuple(lines)


def slurm_conf(
    site: Site, nodes: Sequence[NodePlan], *, topology: bool, own_names: bool, overrides: Mapping[str, str]
) -> str:
    """The text of slurm.conf."""
    own = own_settings(site, topology=topology)
    whole = {key: value for key, value in overrides.items() if "." not in key}
    merged = merge_settings(own, whole)
    return templates.render(
        "lab-slurm.conf",
        own={key: merged[key] for key in own if key in merged},
        production={key: merged[key] for key in PRODUCTION_SETTINGS if key in merged and key not in own},
        added={key: merged[key] for key in merged if key not in own and key not in PRODUCTION_SETTINGS},
        nodes=node_lines(site, nodes, own_names=own_names),
        partitions=partition_lines(nodes, {key: value for key, value in overrides.items() if "." in key}),
    )


def gres_conf(site: Site, nodes: Sequence[NodePlan], *, real: bool = False) -> str:
    """The text of gres.conf. Slurm refuses a count without device files, so each GPU names one.

    Args:
        site: where they run.
        nodes: all nodes.
        real: the device files are the machine's own, not those of the nodes' fake roots.
    """
    lines = [
        f"NodeName={node.name} Name=gpu Type=h100 File="
        + ("/dev/nvidia" if real else f"{site.folder}/nodes/{node.name}/root/dev/nvidia")
        + (f"[0-{node.gpus - 1}]" if node.gpus > 1 else "0")
        for node in nodes
        if node.gpus
    ]
    return templates.render("lab-gres.conf", lines=lines)


def topology_conf(nodes: Sequence[NodePlan], leaf: int) -> str:
    """The text of topology.conf: leaf switches of `leaf` nodes of one kind each, under one spine."""
    leaves = []
    for _, members in groupby(nodes, key=lambda node: node.partition):
        chosen = list(members)
        leaves += [_fold(chosen[start : start + leaf]) for start in range(0, len(chosen), leaf)]
    width = len(str(len(leaves)))
    names = [f"leaf{number:0{width}}" for number in range(1, len(leaves) + 1)]
    return templates.render("lab-topology.conf", leaves=zip(names, leaves, strict=True), spine=NodeSet.fromlist(names))


def cgroup_conf(slurm_version: tuple[int, int], mount_point: Path | None = None) -> str:
    """The text of cgroup.conf. Without control groups (`mount_point` is None) slurmd wants a plugin all the same.

    22.05 has no "disabled" and its autodetection ends slurmd where /sys/fs/cgroup is not mounted; v1 loads anywhere.
    """
    if mount_point is not None:
        return f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={mount_point}\n"
    return f"CgroupPlugin={'disabled' if versions.has(slurm_version, 'cgroup_disabled') else 'cgroup/v1'}\n"


def hook(site: Site, kind: str) -> str:
    """The text of the prolog or the epilog."""
    return templates.render("lab-hook.sh", folder=site.folder, kind=kind)


def _fold(nodes: Sequence[NodePlan]) -> str:
    return str(NodeSet.fromlist([node.name for node in nodes]))
