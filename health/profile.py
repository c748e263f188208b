"""What this node should have, and how strict the site is: one JSON file, compiled from the cluster's configuration.

    {"gpus": 8, "ib": {"mlx5_0": {"rate": "400 Gb/sec (4X NDR)", "link_layer": "InfiniBand"}},
     "mounts": {"/scratch": {"type": "lustre", "options": ["rw"]}}, "memory_mib": 2063000, "units": ["munge"],
     "thresholds": {"fs.usage": 95}, "modes": {"*": "drain", "ib.counters": "observe"}, "off": ["gpu.temp"]}

Every key may be missing: then that is not expected, and the check says "skip" or judges only what contradicts itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainmaster.health.record import Any, NamedTuple

FILE = "/etc/trainmaster/health.json"
MODES = ("observe", "comment", "drain")


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
        value = self.table("thresholds").get(check)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default

    def mode(self, check: str) -> str:
        """How far a check may go: observe, comment or drain. The longest name wins, "*" stands for the rest."""
        modes = self.table("modes")
        parts = check.split(".")
        for length in range(len(parts), 0, -1):
            chosen = modes.get(".".join(parts[:length]))
            if chosen in MODES:
                return str(chosen)
        return str(modes["*"]) if modes.get("*") in MODES else "drain"


def decode(raw: Any) -> tuple[Profile, tuple[str, ...]]:
    """A profile and everything that is wrong with it; what is wrong is left out, never guessed."""
    if not isinstance(raw, dict):
        return Profile({}), (f"the profile is {type(raw).__name__}, not an object",)
    faults: list[str] = []
    kept: dict[str, Any] = {}
    for key, value in raw.items():
        kind = _KINDS.get(key)
        if kind is None:
            faults.append(f"{key!r} is not known; known are {', '.join(sorted(_KINDS))}")
        elif not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            faults.append(f"{key!r} is {value!r}, which is no {kind.__name__}")
        else:
            kept[key] = value
    for check, mode in list(kept.get("modes", {}).items()):
        if mode not in MODES:
            faults.append(f"modes.{check} is {mode!r}; a mode is one of {', '.join(MODES)}")
    return Profile(kept), tuple(faults)


_KINDS: dict[str, type] = {
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
    "thresholds": dict,
    "modes": dict,
    "off": list,
    "requeue": bool,
    "deadlines_s": dict,
    "tools": dict,
}
