"""`trainmaster jobs`: this user's jobs, from any shell. One module for each group of verbs."""

import argparse

from trainmaster.launcher.follow import (
    jobs_attach_cli,
    jobs_diagnose_cli,
    jobs_drill_cli,
    jobs_end_cli,
    jobs_explain_cli,
    jobs_gc_cli,
    jobs_list_cli,
    jobs_logs_cli,
    jobs_show_cli,
    jobs_swap_cli,
)

# In the order in which `--help` shows them. A new verb is a module with `add(verbs)`, and its name here.
_GROUPS = (
    jobs_list_cli,
    jobs_show_cli,
    jobs_logs_cli,
    jobs_explain_cli,
    jobs_attach_cli,
    jobs_drill_cli,
    jobs_diagnose_cli,
    jobs_swap_cli,
    jobs_end_cli,
    jobs_gc_cli,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for group in _GROUPS:
        group.add(verbs)
