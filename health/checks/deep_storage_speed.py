"""The site's folders are as fast from here as from other nodes."""

from __future__ import annotations

from trainmaster.health.check import Check, Compare, Context
from trainmaster.health.figures import below, numbers
from trainmaster.health.finding import Action, Finding
from trainmaster.health.record import Any
from trainmaster.health.sources import storage_load

ID = "deep.storage.speed"


def figures(value: Any) -> dict[str, float]:
    """Both ways, of each folder."""
    found = {}
    for one in value["folders"]:
        for name, rate in numbers(one, "write_mbps", "read_mbps").items():
            found[f"storage_{name} {one['folder']}"] = rate
    return found


# Shared storage is slow for whoever comes last, so that is only told; what the site has named, drains.
COMPARE = Compare(figures=figures, share=0.4, action=Action.COMMENT)


def judge(context: Context, value: Any) -> list[Finding]:
    """Against the site's figures."""
    return below(context, ID, COMPARE, value)


CHECK = Check(
    id=ID,
    about="a folder is slower than the site's figure, or much slower than from other nodes",
    sources=(storage_load.SOURCE,),
    judge=judge,
    compare=COMPARE,
)
