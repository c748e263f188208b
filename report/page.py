"""A report as one HTML file that needs no other and no network, in light and dark."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from trainmaster import templates
from trainmaster.errors import UsageError
from trainmaster.report.text import hours


def _pictures() -> ModuleType:
    try:
        from trainmaster.report import pictures
    except ImportError as error:
        raise UsageError(
            f"could not draw the page's pictures: {error}", hint="pip install 'trainmaster[report]' brings matplotlib"
        ) from None
    return pictures


def fleet(values: Mapping[str, Any]) -> str:
    """The page of a fleet report. Raises UsageError where matplotlib is missing."""
    pictures = _pictures()
    drawn: list[tuple[str, str, str]] = []
    if values["causes"]:
        text = "Nodes that were not to be had, on average over each stretch. Times are UTC."
        drawn.append(("When nodes were out", pictures.outs_over_time(values), text))
        text = "By cause, with the number of times. Colours tell whose reason it was."
        drawn.append(("What took nodes out", pictures.out_causes(values), text))
    return templates.render("fleet-report.html", values=values, drawn=drawn, hours=hours)


def ettr(values: Mapping[str, Any]) -> str:
    """The page of an ETTR report. Raises UsageError where matplotlib is missing."""
    pictures = _pictures()
    drawn: list[tuple[str, str, str]] = []
    if values["ettr"] is not None:
        drawn.append(("Where the time went", pictures.whole(values), "Shares of all time that counts in ETTR."))
    if values["spans"]:
        drawn.append(("Its life", pictures.life(values), "From the moment it could have started. Times are UTC."))
    if values["cumulative"]:
        drawn.append(
            ("Over time", pictures.over_time(values), "ETTR of the hour before, and up to then. Times are UTC.")
        )
    if values["lost_to"]:
        text = "By what interrupted, with the number of ends."
        drawn.append(("What interruptions cost", pictures.causes(values), text))
    if values["sizes"] and values["runs"] > 1:
        text = (
            "Exact 95 % intervals. Where large jobs lie below the line, they fail more often than their nodes do alone."
        )
        drawn.append(("How long jobs run until a failure", pictures.by_size(values), text))
    unit = "GPU-hours" if values["by"] == "gpus" else "node-hours"
    return templates.render("report.html", values=values, drawn=drawn, unit=unit, hours=hours)
