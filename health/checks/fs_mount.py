"""Every mount that the profile names is there, of its type, with its options, and can be written if it should."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip
from trainmaster.health.record import Any
from trainmaster.health.sources import mounts


def judge(context: Context, value: Any) -> list[Finding]:
    """Compare with the profile: `{"/scratch": {"type": "lustre", "options": ["rw"]}}`."""
    expected = context.profile.table("mounts")
    if not expected:
        return [skip("the profile names no mount")]
    found = []
    for path, wanted in sorted(expected.items()):
        here = value.get(path)
        wanted = wanted if isinstance(wanted, dict) else {}
        if here is None:
            found.append(fail(Action.DRAIN, "not mounted", subject=path))
            continue
        kind, options = wanted.get("type"), wanted.get("options", ["rw"])
        if kind is not None and here["type"] != kind:
            found.append(fail(Action.DRAIN, f"is {here['type']}, expected {kind}", subject=path, value=here["type"]))
        # The kernel lists "ro" of the mount and "rw" of the file system side by side.
        if "rw" in options and "ro" in here["options"]:
            found.append(fail(Action.DRAIN, "mounted read-only", subject=path, value=here["options"]))
        missing = [option for option in options if option != "rw" and option not in here["options"]]
        if missing:
            found.append(fail(Action.DRAIN, f"lacks the options {','.join(missing)}", subject=path, value=missing))
    return found


CHECK = Check(
    id="fs.mount", about="a mount that the profile names is missing or read-only", sources=(mounts.SOURCE,), judge=judge
)
