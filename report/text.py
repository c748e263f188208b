"""Reports for a terminal."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

BAR = 20


def ettr(values: Mapping[str, Any], *, width: int = 120, colour: bool = False) -> str:
    """The ETTR report."""
    unit = "GPU-hours" if values["by"] == "gpus" else "node-hours"
    console, out = _console(width, colour)
    console.print(f"[bold]{escape(values['scope'])}[/]  {values['since']} to {values['until']}")
    own = f", {values['with_own_record']} with a record of their own" if values["with_own_record"] else ""
    console.print(f"{values['runs']:,} job runs, {values['attempts']:,} attempts{own}")
    if values["ettr"] is None:
        console.print("nothing ran in this time")
    else:
        last = values["sliding_hour"][-1][1] if values["sliding_hour"] else values["ettr"]
        lowest = min((share for _, share in values["sliding_hour"]), default=last)
        console.print(
            f"[bold]ETTR {values['ettr']:.2%}[/] of {values['whole_hours']:,.2f} {unit}; "
            f"last hour {last:.2%}, worst hour {lowest:.2%}; own failures counted too: "
            f"{values['ettr_with_own_failures']:.2%}"
        )
    console.print(_parts(values, unit))
    if values["lost_to"]:
        console.print(_causes(values["lost_to"], unit))
    if values["sizes"]:
        console.print(_sizes(values))
    if values["dearest"] and values["runs"] > 1:
        console.print(_dearest(values["dearest"], unit))
    rate = values["failures"]
    if rate["per_1000_node_days"] is not None:
        console.print(
            f"\nFailures: {rate['count']} in {rate['node_days']:,.2f} node-days under jobs, "
            f"{rate['per_1000_node_days']:,.2f} per 1,000 node-days (95 %: {rate['low']:,.2f} to {rate['high']:,.2f}); "
            f"counted are {', '.join(rate['counts_as_failure'])}"
        )
    console.print("\n[bold]How it is counted[/]")
    console.print("ETTR = productive / (all but user and never started), Kokolis et al. 2024")
    for text in (*values["assumed"], values["attribution"], *values["notes"]):
        console.print(f"- {text}", markup=False)
    return out.getvalue()


def _console(width: int, colour: bool) -> tuple[Console, StringIO]:
    out = StringIO()
    return Console(file=out, width=width, force_terminal=colour, highlight=False, soft_wrap=False), out


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    return table


def _parts(values: Mapping[str, Any], unit: str) -> Table:
    single = values["runs"] == 1
    table = _table("\nWhere the time went", "", *(["seconds"] if single else []), unit, "share")
    table.add_column("", justify="left", no_wrap=True)
    table.add_column("", justify="left")
    for part in values["parts"]:
        if not part["weighted_ms"] and not part["wall_ms"]:
            continue
        share = part["share"]
        bar = "█" * round((share or 0.0) * BAR)
        told = "-" if share is None else f"{share:.2%}"
        seconds = [f"{part['wall_ms'] / 1000:,.3f}"] if single else []
        table.add_row(part["phase"], *seconds, hours(part["hours"]), told, bar, part["means"])
    seconds = [f"{values['parts_sum_wall_ms'] / 1000:,.3f}"] if single else []
    total = values["parts_sum_weighted_ms"] / 3_600_000
    table.add_row("all together", *seconds, hours(total), "", "", "exactly the sum of the lines above")
    return table


def hours(value: float) -> str:
    """Hours with as many digits as are worth reading.

    >>> hours(12345.678), hours(0.01234)
    ('12,345.7', '0.0123')
    """
    return f"{value:,.1f}" if value >= 100 else f"{value:,.4f}" if value < 10 else f"{value:,.2f}"


def _causes(causes: Sequence[Mapping[str, Any]], unit: str) -> Table:
    table = _table("\nWhat interruptions cost", "cause", "ends", unit, "of which")
    table.columns[3].justify = "left"
    for one in causes:
        parts = sorted(one["parts"].items(), key=lambda item: -item[1])
        table.add_row(
            one["cause"],
            f"{one['ends']:,}",
            hours(one["hours"]),
            ", ".join(f"{phase} {hours(value)}" for phase, value in parts),
        )
    return table


def _sizes(values: Mapping[str, Any]) -> Table:
    title = "GPUs" if values["by"] == "gpus" else "nodes"
    table = _table(
        "\nBy size of job", title, "runs", "failures", "MTTF h", "95 %", "of the fleet's rate", "ETTR", "expected"
    )
    for one in values["sizes"]:
        high = one["mttf_high_hours"]
        table.add_row(
            one["size"],
            f"{one['runs']:,}",
            f"{one['failures']:,}",
            "-" if one["mttf_hours"] is None else f"{one['mttf_hours']:,.2f}",
            f"{one['mttf_low_hours']:,.2f} to {'∞' if high is None else f'{high:,.2f}'}",
            "-" if one["mttf_of_rate_hours"] is None else f"{one['mttf_of_rate_hours']:,.2f}",
            "-" if one["ettr"] is None else f"{one['ettr']:.3f}",
            f"{one['ettr_expected']:.3f}",
        )
    return table


def _dearest(runs: Sequence[Mapping[str, Any]], unit: str) -> Table:
    table = _table("\nRuns that lost most", "job", "user", "size", "attempts", f"lost {unit}", "ETTR", "mostly")
    table.columns[1].justify = table.columns[6].justify = "left"
    for one in runs[:10]:
        table.add_row(
            one["job"],
            Text(one["user"]),
            f"{one['size']:,}",
            str(one["attempts"]),
            hours(one["lost_hours"]),
            f"{one['ettr']:.3f}",
            one["mostly"],
        )
    return table


def fleet(values: Mapping[str, Any], *, width: int = 120, colour: bool = False) -> str:
    """The fleet report."""
    console, out = _console(width, colour)
    console.print(f"[bold]fleet[/]  {values['since']} to {values['until']}")
    if values["availability"] is not None:
        whole = values["node_seconds"] / 3600
        console.print(f"[bold]availability {values['availability']:.3%}[/] of {whole:,.1f} node-hours")
    table = _table("", "", "node-hours", "share")
    for name, seconds in values["parts_s"].items():
        share = f"{seconds / values['node_seconds']:.3%}" if values["node_seconds"] else "-"
        table.add_row(name, hours(seconds / 3600), share)
    console.print(table)
    if values["causes"]:
        table = _table("\nWhat took nodes out", "cause", "by", "times", "nodes", "node-hours")
        for one in values["causes"]:
            told = hours(one["node_hours"])
            table.add_row(Text(one["cause"]), one["by"], f"{one['times']:,}", f"{one['nodes']:,}", told)
        console.print(table)
    if values["false_drain_candidates"]:
        title = "\nDrains by checks that may have been wrong: lifted within 30 min, and nothing else in a day around"
        table = _table(title, "node", "lasted s", "at", "reason")
        table.columns[3].justify = "left"
        for one in values["false_drain_candidates"]:
            proven = "" if one["quiet_for_a_day"] else " (less than a day ago)"
            table.add_row(one["node"], f"{one['lasted_s']:,}", one["at"], Text(one["reason"] + proven))
        console.print(table)
    if values["lemons"]:
        table = _table(
            "\nThe controller's verdicts", "node", "lemon", "failures", "days under jobs", "per 1,000 node-days"
        )
        for one in values["lemons"]:
            rates = f"{one['failures']:.2f}", f"{one['exposure_days']:.2f}", f"{one['rate']:,.1f}"
            table.add_row(one["node"], f"{one['probability']:.1%}", *rates)
        console.print(table)
    if values["often_out"]:
        table = _table("\nOut three times or more in 28 days", "node", "times", "last")
        table.columns[2].justify = "left"
        for one in values["often_out"]:
            table.add_row(one["node"], str(one["times"]), Text(one["last"]))
        console.print(table)
    for text in values["notes"]:
        console.print(f"- {text}", markup=False)
    return out.getvalue()
