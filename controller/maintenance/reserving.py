"""Verbs of Slurm that only trains use: reservations, reboots, features; and whether what they want is so."""

import getpass
import math

from trainmaster.controller import evidence, snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.maintenance import stacks
from trainmaster.controller.observe import Door
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Node, Reservation

KINDS = frozenset({Kind.BOOK, Kind.UNBOOK, Kind.REBOOT, Kind.LABEL})


def _booked(act: Act, look: Snapshot) -> Reservation | None:
    return next((one for one in look.reservations if one.name == act.reservation), None)


def holds(act: Act, look: Snapshot) -> bool:
    """Whether what the act wants is so already. Pure."""
    booked = _booked(act, look)
    if act.kind is Kind.BOOK:
        return act.until == 0.0 or booked is not None
    if act.kind is Kind.UNBOOK:
        return booked is None or (bool(act.nodes) and snapshot.members(booked.nodes).isdisjoint(act.nodes))
    nodes = [look.nodes.get(name) for name in act.nodes]
    if act.kind is Kind.LABEL:
        return all(node is not None and act.work in node.features for node in nodes)
    return all(node is not None and rebooted(act, node) and snapshot.drained(node) for node in nodes)


def rebooted(act: Act, node: Node) -> bool:
    """Whether a node has come back from the reboot of this act: Slurm then says so in its reason."""
    return node.reason.endswith(": reboot complete") and node.reason != act.expected_reason


def unasked(act: Act, node: Node) -> bool:
    """Whether Slurm knows nothing of the reboot of this act: it was never asked, or has forgotten it.

    What it was asked shows at once, in the state as REBOOT_REQUESTED or REBOOT_ISSUED, and in the reason (22.05.8).
    """
    return node.reason == act.expected_reason and "REBOOT" not in node.state and node.state.startswith("IDLE")


def do(door: Door, act: Act, look: Snapshot) -> None:
    """Ask Slurm for it. Raises SlurmError."""
    if act.kind is Kind.BOOK:
        # IGNORE_JOBS: what runs there goes on, and is asked to leave when it has to, not by the reservation.
        door.create_reservation(
            act.reservation,
            Nodes=snapshot.fold(act.nodes),
            StartTime="now",
            Duration=str(max(60, math.ceil((act.until - look.at) / 60.0))),
            Flags="MAINT,IGNORE_JOBS",
            Users=getpass.getuser(),
        )
    elif act.kind is Kind.UNBOOK:
        booked = _booked(act, look)
        left = snapshot.members(booked.nodes).difference(act.nodes) if booked is not None and act.nodes else ()
        if left:
            door.update_reservation(act.reservation, Nodes=snapshot.fold(left))
        else:
            door.delete_reservation(act.reservation)
    elif act.kind is Kind.REBOOT and all(rebooted(act, look.nodes[name]) for name in act.nodes):
        # A reboot takes the drain away (22.05.8) and leaves it DOWN, which ReturnToService=2 would end by itself.
        door.update_nodes(snapshot.fold(act.nodes), State="DRAIN", Reason=look.nodes[act.nodes[0]].reason)
    elif act.kind is Kind.REBOOT:
        door.reboot(snapshot.fold(act.nodes), reason=evidence.plain(act.expected_reason))
    else:
        together: dict[str, list[str]] = {}
        for name in act.nodes:
            together.setdefault(stacks.with_label(look.nodes[name], act.work), []).append(name)
        for features, names in sorted(together.items()):
            door.update_nodes(snapshot.fold(names), AvailableFeatures=features, ActiveFeatures=features)
