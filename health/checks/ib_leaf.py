"""Each port is cabled to the switch that the profile names. After work on the cables two may have changed places:
every link is up, and the traffic of one rail crosses the spine to another."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import neighbours


def judge(context: Context, value: Any) -> list[Finding]:
    """A port that does not answer is ib.state's."""
    expected = {name: str(guid).lower() for name, guid in context.profile.table(neighbours.KEY).items()}
    found = []
    for name, guid in sorted(expected.items()):
        here = value.get(name)
        if here is None or _number(here["guid"]) == _number(guid):
            continue
        meant = sorted(other for other, wanted in expected.items() if _number(wanted) == _number(here["guid"]))
        where = f"{here['type'] or 'node'} {here['guid']}" + (f", where {meant[0]} should be" if meant else "")
        found.append(fail(Action.DRAIN, f"is cabled to {where}", subject=name, value=here["guid"], threshold=guid))
    return found


def _number(guid: str) -> Any:
    """0x0000000000200000 and 0x200000 are one; what is no number is itself."""
    try:
        return int(guid, 16)
    except ValueError:
        return guid


CHECK = Check(
    id="ib.leaf",
    about="a port is cabled to another switch than the profile says",
    sources=(neighbours.SOURCE,),
    judge=judge,
)
