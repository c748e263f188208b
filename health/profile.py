"""What this node should have, and how strict the site is: one JSON file, compiled from the cluster's configuration.

    {"gpus": 8, "ib": {"mlx5_0": {"rate": "400 Gb/sec (4X NDR)", "link_layer": "InfiniBand"}},
     "mounts": {"/scratch": {"type": "lustre", "options": ["rw"]}}, "memory_mib": 2063000, "units": ["munge"],
     "thresholds": {"fs.usage": 95}, "modes": {"*": "drain", "ib.counters": "observe"}, "off": ["gpu.temp"],
     "actions": {"gpu.persistence:warn": "drain"}, "for": [{"hosts": "login*", "gpus": 0}]}

Every key may be missing: then that is not expected, and the check says "skip" or judges only what contradicts itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainmaster.health import hosts
from trainmaster.health.finding import Action
from trainmaster.health.record import Any, NamedTuple

FILE = "/etc/trainmaster/health.json"
MODES = ("observe", "comment", "drain")
_INFINITE = float("inf")
_ACTIONS = {action.value: action for action in Action}


class Profile(NamedTuple):
    """The decoded file."""

    raw: Mapping[str, Any]

    @property
    def gpus(self) -> int | None:
        """How many GPUs there should be; None when nobody said."""
        value = self.raw.get("gpus")
        return value if isinstance(value, int) else None

    def table(self, key: str) -> Mapping[str, Any]:
        """An object of the file; empty when it is missing."""
        value = self.raw.get(key)
        return value if isinstance(value, dict) else {}

    def names(self, key: str) -> tuple[str, ...]:
        """A list of strings of the file; empty when it is missing."""
        value = self.raw.get(key)
        return tuple(str(entry) for entry in value) if isinstance(value, list) else ()

    def threshold(self, check: str, default: float) -> float:
        """The site's number for a check, or ours."""
        value = number(self.table("thresholds").get(check))
        return default if value is None else value

    def mode(self, check: str) -> str:
        """How far a check may go: observe, comment or drain. The longest name wins, "*" stands for the rest."""
        modes = self.table("modes")
        parts = check.split(".")
        for length in range(len(parts), 0, -1):
            chosen = modes.get(".".join(parts[:length]))
            if chosen in MODES:
                return str(chosen)
        return str(modes["*"]) if modes.get("*") in MODES else "drain"

    def action(self, check: str, kind: str = "") -> Action | None:
        """What the site wants findings of a check to ask for, where it is not what the check asks for.

        `kind` is warn or unknown for such findings, and empty for failures and hangs. The longest name wins.
        """
        actions = self.table("actions")
        parts = check.split(".")
        for length in range(len(parts), 0, -1):
            chosen = actions.get(".".join(parts[:length]) + (f":{kind}" if kind else ""))
            if isinstance(chosen, str) and chosen in _ACTIONS:
                return _ACTIONS[chosen]
        return None


def number(value: Any) -> float | None:
    """A finite number of JSON, which also knows NaN, Infinity, and whole numbers that no float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) < _INFINITE else None


def decode(raw: Any, host: str = "") -> tuple[Profile, tuple[str, ...]]:
    """A host's profile and everything that is wrong with it; what is wrong is left out, never guessed."""
    if not isinstance(raw, dict):
        return Profile({}), (f"the profile is {type(raw).__name__}, not an object",)
    raw, _, faults = hosts.merged(raw, host) if hosts.KEY in raw else (raw, {}, [])
    kept: dict[str, Any] = {}
    for key, value in raw.items():
        kind = KINDS.get(key)
        if kind is None:
            faults.append(f"{key!r} is not known; known are {', '.join(sorted(KINDS))}")
        elif not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            faults.append(f"{key!r} is {value!r}, which is no {kind.__name__}")
        else:
            kept[key] = value
    for check, mode in list(kept.get("modes", {}).items()):
        if mode not in MODES:
            faults.append(f"modes.{check} is {mode!r}; a mode is one of {', '.join(MODES)}")
    for check, chosen in list(kept.get("actions", {}).items()):
        if not isinstance(chosen, str) or chosen not in _ACTIONS:
            faults.append(f"actions.{check} is {chosen!r}; an action is one of {', '.join(_ACTIONS)}")
    for table in ("thresholds", "deadlines_s"):
        for check, value in kept.get(table, {}).items():
            if number(value) is None:
                faults.append(f"{table}.{check} is {str(value)[:40]}; write a number")
    return Profile(kept), tuple(faults)


KINDS: dict[str, type] = {
    "gpus": int,
    "gpu": dict,
    "ib": dict,
    "mounts": dict,
    "memory_mib": int,
    "cpus": int,
    "governor": str,
    "clocksource": str,
    "hugepages": dict,
    "units": list,
    "host": dict,
    "rails": dict,
    "leaves": dict,
    "thresholds": dict,
    "modes": dict,
    "actions": dict,
    "off": list,
    "requeue": bool,
    "deadlines_s": dict,
    "tools": dict,
    "deep": dict,
}
