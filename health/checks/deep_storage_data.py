"""The site's folders can be written to, and give back what was written."""

from __future__ import annotations

import errno

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, unknown
from trainmaster.health.record import Any
from trainmaster.health.sources import storage_load

BROKEN = {errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.EHOSTDOWN}
"""What speaks against the node. A folder that is full, missing or closed to us tells nothing about it."""


def judge(context: Context, value: Any) -> list[Finding]:
    """Errors, and pieces that came back differently."""
    found = []
    for figures in value["folders"]:
        folder = str(figures["folder"])
        if figures.get("errno") in BROKEN:
            found.append(fail(Action.DRAIN, f"{figures['error']}", subject=folder, value=figures["errno"]))
        elif "error" in figures:
            found.append(unknown(Action.COMMENT, f"not looked at: {figures['error']}", subject=folder))
        elif figures.get("wrong_pieces"):
            detail = f"{figures['wrong_pieces']} pieces of 4 MiB came back differently"
            found.append(fail(Action.DRAIN, detail, subject=folder, value=figures["wrong_pieces"], threshold=0))
    return found


CHECK = Check(
    id="deep.storage.data",
    about="a folder that the profile names fails, or does not give back what was written",
    sources=(storage_load.SOURCE,),
    judge=judge,
)
