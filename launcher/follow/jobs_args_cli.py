"""What the verbs of `trainmaster jobs` have in common on the command line."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def new_verb(
    verbs: "Verbs", name: str, text: str, run: Callable[[argparse.Namespace], int], *, job: str | None = "one"
) -> argparse.ArgumentParser:
    """A verb that prints JSON if asked to. `job`: "one" or "many" jobs that it is about, or None."""
    parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    if job is not None:
        text = "1234, 1234_5 for a task of an array, 1234+1 for a part of a heterogeneous job"
        parser.add_argument("job_id", nargs="+" if job == "many" else None, metavar="JOB", help=text)
        text = "the folder it was submitted with, when it is not in the list; or its run folder, as the list has it"
        parser.add_argument("--folder", type=Path, help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
