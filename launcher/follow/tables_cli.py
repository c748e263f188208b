"""Tables on stdout: drawn on a terminal, plain columns in a pipe."""

import sys
from collections.abc import Sequence

COLOURS = {
    "SUCCEEDED": "green",
    "RUNNING": "green",
    "PENDING": "dim",
    "STARTING": "dim",
    "UNKNOWN": "magenta",
    "LOST": "magenta",
    "RESTARTING": "yellow",
    "REQUEUED": "yellow",
    "CANCELLING": "yellow",
    "CANCELLED": "yellow",
}
"""Of a job's states; every other one is bad news."""


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, states: int | None = None) -> None:
    """Print rows under titles. `states`: the column that holds a state, which is coloured on a terminal."""
    if not sys.stdout.isatty():
        widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
        for row in (titles, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold", justify="right" if title.endswith(" s") or title == "STEP" else "left")
    for row in rows:
        table.add_row(*(Text(cell, style=colour_of(cell) if at == states else "") for at, cell in enumerate(row)))
    Console(highlight=False).print(table)


def colour_of(state: str) -> str:
    """The style of a state on a terminal."""
    return COLOURS.get(state.partition(" ")[0], "bold red")
