"""Whether each mount still answers, and how full it is: stat and statvfs, in a child that can be abandoned.

Only local disks and the mounts that the profile names are asked. One child asks them in turn; a mount that does not
answer costs that child, and those after it get another. So one stale NFS server neither stops nor hides the others.
"""

from __future__ import annotations

import json
import os
import select
import time
from functools import partial

from trainmaster.health import children
from trainmaster.health.check import Place, Source
from trainmaster.health.children import Child
from trainmaster.health.record import Any
from trainmaster.health.sources import mounts

PATIENCE_S = 5.0
ALWAYS = ("/", "/tmp", "/var", "/var/tmp", "/home")
"""Not /dev/shm: what a job does there is its own business."""
_ALWAYS_FULL = ("squashfs", "erofs", "iso9660", "cramfs")
_NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "cifs", "fuse", "afs")


def read(place: Place) -> Any:
    """{path: {"used": per cent, "inodes": per cent}, or {"hung": true}, or {"error": words}}."""
    table = mounts.read(place)
    named = set(place.profile.table("mounts"))
    # A network mount that nobody named is not ours to ask.
    own = {path for path in ALWAYS if path in table and not table[path]["type"].startswith(_NETWORK)}
    memory = place.memory if isinstance(place.memory, dict) else {}
    held = {path: known for path, known in memory.items() if children.lives(known)}
    asked = named & set(table) | own
    found = ask_all(sorted(asked - set(held)), place.root, PATIENCE_S)
    # Asked again, each would cost one more process that cannot be killed, in every pass.
    found.update({path: {"hung": True, "in": "", "child": known} for path, known in held.items() if path in asked})
    for path, facts in found.items():
        if table[path]["type"] in _ALWAYS_FULL:
            facts.pop("used", None)
            facts.pop("inodes", None)
    return found


def ask_all(paths: list[str], root: str, patience_s: float) -> dict[str, Any]:
    """Ask each for at most `patience_s`, and all of them for at most three times that."""
    found: dict[str, Any] = {}
    asked: list[Child] = []
    left = list(paths)
    deadline_s = time.monotonic() + 3 * patience_s
    while left and time.monotonic() < deadline_s:
        child = children.fork(partial(_tell, [root + path for path in left]))
        asked.append(child)
        while left:
            told = _line(child, min(time.monotonic() + patience_s, deadline_s))
            if told is None:
                found[left.pop(0)] = {"hung": True, "in": child.where(), "pid": child.pid}
                break
            found[left.pop(0)] = json.loads(told) if told else {"error": "the process that asked died"}
        child.kill()
    found.update({path: {"error": "not asked: others hung"} for path in left})
    alive = {child.pid for child in children.reap(asked, 0.2)}
    for facts in found.values():
        pid = facts.pop("pid", 0)
        if pid in alive and (known := children.identity(pid)) is not None:
            facts["child"] = known
    return found


def remember(value: Any) -> Any:
    """By mount, the process that hangs on it and could not be killed."""
    return {path: facts["child"] for path, facts in value.items() if "child" in facts}


def _line(child: Child, deadline_s: float) -> str | None:
    """The next line of a child; None when it does not come, "" when the child has died."""
    (descriptor,) = child.streams
    text = child.streams[descriptor]
    while b"\n" not in text:
        if descriptor not in child.open:
            return ""
        if not select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            return None
        child.hear(descriptor)
    line, _, rest = bytes(text).partition(b"\n")
    text[:] = rest
    return line.decode()


def _tell(paths: list[str], descriptor: int) -> None:
    for path in paths:
        try:
            os.stat(path)
            told: dict[str, Any] = shares(os.statvfs(path))
        except OSError as error:
            told = {"error": error.strerror or str(error)}
        os.write(descriptor, json.dumps(told).encode() + b"\n")


def shares(status: os.statvfs_result) -> dict[str, Any]:
    """Per cent of what an ordinary user may use, as `df` computes it. Pure."""
    used = status.f_blocks - status.f_bfree
    usable = used + status.f_bavail
    inodes = status.f_files - status.f_ffree
    return {
        "used": round(100 * used / usable, 1) if usable else 0.0,
        "inodes": round(100 * inodes / status.f_files, 1) if status.f_files else 0.0,
    }


SOURCE = Source(
    name="fs.space",
    about="stat and statvfs of the mounts, in a child of their own",
    read=read,
    deadline_s=16.0,
    remember=remember,
)
