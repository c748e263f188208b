"""Writes what a lab's daemons read: configuration, keys, hooks and the folders of the nodes."""

import os
import pwd
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainmaster.errors import LabError
from trainmaster.lab import accounting, config, daemons, fakeroot, jobgroups, munge
from trainmaster.lab.config import Site
from trainmaster.lab.spec import LabSpec, NodePlan
from trainmaster.lab.state import LabState
from trainmaster.slurm import versions


def site_of(lab: LabState) -> Site:
    """What the configuration says about this machine and this user."""
    network = lab.network
    host = socket.gethostname().partition(".")[0]
    loopback = _loopback_of(host)
    # In networks of their own the nodes' names resolve to nothing, and slurmctld must answer on the bridge as well.
    one_address = network is None and loopback is not None
    address = network.address if network else loopback or config.LOOPBACK
    return Site(
        name=lab.name,
        folder=lab.folder,
        host=host,
        address=address,
        one_address=one_address,
        user=_user(),
        slurm_version=versions.release(lab.slurm_version),
        controller_port=lab.controller_port,
        dbd_port=lab.dbd_port,
        node_ports=lab.node_ports,
        node_addresses={name: network.cable(name).address if network else address for name in lab.node_ports},
    )


def configuration(lab: LabState, spec: LabSpec, nodes: Sequence[NodePlan]) -> dict[str, str]:
    """The text of each configuration file, by its name."""
    site = site_of(lab)
    settings = {"ProctrackType": "proctrack/cgroup"} | dict(spec.settings) if spec.cgroups else spec.settings
    groups = jobgroups.mount_point(lab.folder) if spec.cgroups else None
    scripts = {}
    if spec.job_submit is not None:
        # A plug-in may set preferences, and none of them shall cost a job.
        given = settings.get("SchedulerParameters", "")
        lenient = ",".join(filter(None, (given, "ignore_prefer_validation")))
        settings = {"JobSubmitPlugins": "lua", **settings, "SchedulerParameters": lenient}
        scripts["job_submit.lua"] = (
            _job_submit(spec.job_submit)
            .replace("/run/trainmaster", f"{lab.folder}/run")
            .replace("/etc/trainmaster", f"{lab.folder}/run")
        )
        nodes = _labelled(spec.fabric, nodes) if spec.fabric else nodes
    texts = {
        "slurm.conf": config.slurm_conf(site, nodes, topology=spec.leaf > 0, own_names=spec.netns, overrides=settings),
        "gres.conf": config.gres_conf(site, nodes, real=spec.real_gpus),
        "cgroup.conf": config.cgroup_conf(site.slurm_version, groups),
        "prolog": config.hook(site, "prolog"),
        "epilog": config.hook(site, "epilog"),
        **scripts,
    }
    if spec.leaf > 0:
        if spec.fabric:
            texts["topology.conf"] = _topology_of_fabric(spec.fabric, [node.name for node in nodes])
        else:
            texts["topology.conf"] = config.topology_conf(nodes, spec.leaf)
    if lab.dbd_port is not None:
        texts["slurmdbd.conf"] = accounting.slurmdbd_conf(site)
    return texts


def _job_submit(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise LabError(f"the lab's job_submit.lua {path} cannot be read: {error.strerror}") from None


def _labelled(shape: str, nodes: Sequence[NodePlan]) -> list[NodePlan]:
    from trainmaster.fabric.foresight import label
    from trainmaster.fabric.topology_conf import read_config, tree_of

    # As Slurm will tell it, so that pods have the names that it knows.
    tree = tree_of(read_config(_topology_of_fabric(shape, [node.name for node in nodes])))
    pods = {node: tree.pods[int(tree.pod_of[number])] for node, number in tree.index.items()}
    return [replace(node, features=(*node.features, label(pods[node.name]))) for node in nodes]


def _topology_of_fabric(shape: str, nodes: Sequence[str]) -> str:
    # Late: they bring numpy, and most labs have no fabric.
    from trainmaster.fabric.emit import tree_conf
    from trainmaster.fabric.generate import generate, parse_shape
    from trainmaster.fabric.merge import collapse

    return tree_conf(collapse(generate(parse_shape(shape), names=nodes)))


def write(lab: LabState, spec: LabSpec, nodes: Sequence[NodePlan]) -> None:
    """Fill the lab's folder, which holds nothing but lab.json yet."""
    folder = lab.folder
    for name in ("log", "run", "state", "spool", "tmp", "nodes"):
        (folder / name).mkdir()
    for node in nodes:
        (folder / "spool" / node.name).mkdir()
        (folder / "tmp" / node.name).mkdir()
        # As /tmp is: the jobs of any user write here.
        (folder / "tmp" / node.name).chmod(0o1777)
        fakeroot.create(folder / "nodes" / node.name / "root", node_name=node.name, gpus=node.gpus)
    munge.prepare(folder / "munge")
    for name, text in configuration(lab, spec, nodes).items():
        path = folder / name
        # slurmdbd refuses a configuration that others can read, since it may hold a password.
        path.touch(mode=0o600 if name == "slurmdbd.conf" else 0o755 if name in ("prolog", "epilog") else 0o644)
        path.write_text(text)
    if lab.dbd_port is not None:
        env = daemons.environment(folder=folder, conf=lab.conf, node_name=None)
        accounting.prepare(site_of(lab), env=env)


def _loopback_of(host: str) -> str | None:
    """127.0.0.1 if that is what this machine's name resolves to, else None.

    Debian's installer gives the name 127.0.1.1. srun would listen there alone, while whoever it has called sees it come
    from 127.0.0.1 and is refused when it calls back there: every step would hang.
    """
    try:
        address = socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
    except OSError:
        return None
    return config.LOOPBACK if address == config.LOOPBACK else None


def _user() -> str:
    """Who runs the daemons; a uid without a name will do."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
