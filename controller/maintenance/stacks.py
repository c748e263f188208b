"""Which stack a host has, as one node feature: a job that asks for `[stack_a|stack_b]` never spans two. Pure."""

import hashlib
from collections.abc import Mapping

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
