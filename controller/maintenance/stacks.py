"""Which stack a host has, as one node feature: a job that asks for `[stack_a|stack_b]` never spans two. Pure."""

import hashlib
from collections.abc import Iterable, Mapping

from trainmaster.controller.maintenance.catalogue import Catalogue
from trainmaster.slurm.values import Node

PREFIX = "stack_"


def label(catalogue: Catalogue, found: Mapping[str, str]) -> str:
    """The feature for what jobs notice of these versions; "" while none of it is known."""
    seen = sorted(f"{name}={found[name]}" for name, one in catalogue.components.items() if one.stack and name in found)
    return PREFIX + hashlib.sha256("\n".join(seen).encode()).hexdigest()[:8] if seen else ""


def with_label(node: Node, wanted: str) -> str:
    """A node's features with this one in place of any other of ours, as `scontrol update` takes them."""
    return ",".join((*(one for one in node.features if not one.startswith(PREFIX)), *([wanted] if wanted else ())))


def labels(nodes: Iterable[Node]) -> dict[str, int]:
    """The stacks that nodes carry, and how many nodes each."""
    found: dict[str, int] = {}
    for node in nodes:
        for one in node.features:
            if one.startswith(PREFIX):
                found[one] = found.get(one, 0) + 1
    return dict(sorted(found.items()))


def constraint(asked: str, found: Iterable[str]) -> str:
    """What keeps a job of several nodes within one stack, besides what it asked for; "" when nothing has to.

    Slurm takes one group of alternatives only, so a job that brings its own, or a count, is left as it is.

    >>> constraint("", ["stack_a", "stack_b"]), constraint("h100", ["stack_a", "stack_b"])
    ('[stack_a|stack_b]', 'h100&[stack_a|stack_b]')
    >>> constraint("", ["stack_a"]), constraint("[rack1|rack2]", ["stack_a", "stack_b"])
    ('', '')
    """
    alternatives = sorted(found)
    if len(alternatives) < 2 or any(sign in asked for sign in "[|*") or PREFIX in asked:
        return ""
    group = f"[{'|'.join(alternatives)}]"
    return f"{asked}&{group}" if asked else group
