"""What deep checks measure, held against what the site has named. Pure.

    {"deep": {"expected": {"memory_copy_gbps": 410, "storage_write_mbps": 900}, "storage": ["/scratch"]}}

What nobody has named is compared with other nodes by `trainmaster health validate`, and not judged by a node alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainmaster.health.check import Compare, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.profile import Profile

SITE_SHARE = 0.92
"""Of a figure that the site has named; less is slow."""


def named(profile: Profile, figures: Mapping[str, float]) -> dict[str, float]:
    """Of these figures ("storage_write_mbps /scratch"), those that the site has named, alone or with their subject."""
    expected = profile.table("deep").get("expected")
    found: dict[str, float] = {}
    if not isinstance(expected, dict):
        return found
    for figure in figures:
        wanted = expected.get(figure, expected.get(figure.partition(" ")[0]))
        if isinstance(wanted, (int, float)) and not isinstance(wanted, bool) and wanted > 0:
            found[figure] = float(wanted)
    return found


def below(context: Context, check: str, compare: Compare, value: object) -> list[Finding]:
    """The figures that are less than the site's."""
    figures = compare.figures(value)
    share = context.profile.threshold(check, SITE_SHARE)
    found = []
    for figure, wanted in named(context.profile, figures).items():
        seen = figures[figure]
        if seen < share * wanted:
            name, _, subject = figure.partition(" ")
            detail = f"{name} {seen:g}, expected {wanted:g}"
            found.append(fail(Action.DRAIN, detail, subject=subject, value=seen, threshold=share * wanted))
    return found


def numbers(value: Mapping[str, object], *names: str) -> dict[str, float]:
    """Those of these entries that are numbers above 0.

    >>> numbers({"a": 3, "b": None, "c": 0}, "a", "b", "c")
    {'a': 3.0}
    """
    found = {}
    for name in names:
        seen = value.get(name)
        if isinstance(seen, (int, float)) and not isinstance(seen, bool) and seen > 0:
            found[name] = float(seen)
    return found
