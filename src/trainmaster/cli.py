"""The one command. Each folder brings its own nouns, and only the noun that was asked for is imported."""

import argparse
import sys
from importlib import import_module
from typing import NoReturn

# noun -> (module with `configure(parser)`, one line of help). A new noun is one line here.
NOUNS = {
    "submit": ("trainmaster.launcher.submit.submit_cli", "submit a program as a multi-node job"),
    "run": ("trainmaster.launcher.script.run_cli", "the same inside an sbatch script: exec trainmaster run -- PROGRAM"),
    "jobs": ("trainmaster.launcher.follow.jobs_cli", "list, show, cancel jobs and read their logs"),
    "config": (
        "trainmaster.launcher.submit.config_cli",
        "the cluster's and your own defaults, and where each comes from",
    ),
    "template": ("trainmaster.launcher.submit.template_cli", "sbatch scripts for those who submit with sbatch"),
    "health": ("trainmaster.health.cli", "check this node's health"),
    "fabric": ("trainmaster.fabric.cli", "the fabric: discover it, write Slurm's topology, lint it"),
    "doctor": ("trainmaster.slurm_plugins.doctor_cli", "every known trap in a Slurm configuration, and what to write"),
    "install": ("trainmaster.slurm_plugins.install_cli", "hooks, controller, topology or job_submit.lua, put in place"),
    "uninstall": ("trainmaster.slurm_plugins.uninstall_cli", "take away what install put there"),
    "controller": ("trainmaster.controller.controller_cli", "take bad nodes out, bring jobs back: for admins"),
    "controller page": ("trainmaster.page.page_cli", "the same in a browser: fleet, jobs, trains, decisions and why"),
    "top": ("trainmaster.page.top_cli", "the same in a terminal"),
    "sim": ("trainmaster.controller.sim.sim_cli", "simulate a fleet under the controller's own decisions"),
    "report": ("trainmaster.report.report_cli", "where the GPU hours went: ETTR, lost time by cause, the fleet"),
    "lab": ("trainmaster.lab.cli", "a real Slurm cluster on this machine, with faults to inject"),
}


class Parser(argparse.ArgumentParser):
    """argparse's, which also says what an unknown option may be meant to be."""

    def error(self, message: str) -> NoReturn:
        """End with 2, the usage and the message."""
        from difflib import get_close_matches

        known = self._options()
        given = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        # An ambiguous option is told with what it could match.
        if message.startswith("unrecognized arguments:"):
            meant = [f"{near[0]} instead of {word}" for word in given if (near := get_close_matches(word, known, n=1))]
            message += f"; did you mean {', '.join(meant)}?" if meant else ""
        super().error(message)

    def _options(self) -> list[str]:
        """Options of this parser and of its verbs."""
        found = []
        for action in self._actions:
            found += [flag for flag in action.option_strings if flag.startswith("--")]
            for verb in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
                found += verb._options() if isinstance(verb, Parser) else ()
        return list(dict.fromkeys(found))


def _overview() -> str:
    lines = ["usage: trainmaster NOUN ...", "", "nouns:"]
    lines += [f"  {noun:<17}{summary}" for noun, (_, summary) in NOUNS.items()]
    lines += ["", "`trainmaster NOUN --help` tells more. Exit codes: 0 ok, 1 could not be done, 2 to be changed first."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    # A verb that needs more than its noun's floor may use has a line of its own.
    words = 2 if " ".join(arguments[:2]) in NOUNS else 1
    noun, rest = " ".join(arguments[:words]), arguments[words:]
    if noun == "--version":
        from trainmaster.slurm import __version__

        print(f"trainmaster {__version__}")
        return 0
    if noun not in NOUNS:
        print(f"trainmaster: there is no {noun!r}\n\n{_overview()}", file=sys.stderr)
        return 2
    module, summary = NOUNS[noun]
    parser = Parser(prog=f"trainmaster {noun}", description=summary)
    import_module(module).configure(parser)
    args = parser.parse_args(rest)

    from trainmaster.errors import TrainmasterError

    try:
        code: int = args.run(args)
        return code
    except TrainmasterError as error:
        print(f"trainmaster {noun}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; point stdout elsewhere so that the interpreter's last flush stays quiet.
        sys.stdout = None
        return 0
