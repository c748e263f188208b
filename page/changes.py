"""What differs between two states of the page, as small as can be: a change of one node is one node. Pure."""

from dataclasses import MISSING, fields, replace
from typing import Any

import msgspec

from trainmaster.page.facts import Facts, NodeFact, counts

_USUAL = {field.name: field.default for field in fields(NodeFact) if field.default is not MISSING}


def _short(node: NodeFact) -> dict[str, Any]:
    """A node without what is as usual: most are, and there are thousands of them."""
    found: dict[str, Any] = {"name": node.name, "look": node.look.value, "slurm": node.slurm}
    for name, usual in _USUAL.items():
        if (value := getattr(node, name)) != usual:
            found[name] = value
    return found


def whole(facts: Facts) -> dict[str, Any]:
    """Everything, as it is sent to a browser that has just come."""
    values: dict[str, Any] = msgspec.to_builtins(replace(facts, nodes={}))
    nodes = {name: _short(node) for name, node in facts.nodes.items()}
    return values | {"nodes": nodes, "counts": counts(facts)}


def between(old: Facts, new: Facts) -> dict[str, Any]:
    """What a browser that has `old` needs to have `new`; `full` when it has to begin anew."""
    if old.pods != new.pods or old.nodes.keys() != new.nodes.keys():
        return {"full": True}
    found: dict[str, Any] = {
        "at": new.at,
        "controller_at": new.controller_at,
        "trouble": new.trouble,
        "nodes": {name: _short(node) for name, node in new.nodes.items() if old.nodes[name] != node},
    }
    newest = old.feed[0].number if old.feed else 0
    found["feed"] = [entry for entry in new.feed if entry.number > newest]
    for name in ("jobs", "jobs_total", "trains", "lines", "next", "trips", "wiring", "tick_s", "cluster"):
        if getattr(old, name) != getattr(new, name):
            found[name] = getattr(new, name)
    if found["nodes"]:
        found["counts"] = counts(new)
    values: dict[str, Any] = msgspec.to_builtins(found)
    return values
