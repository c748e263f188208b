"""`python3 -I -S …/trainmaster/health/__main__.py check …`: what hooks start. Reads its options without argparse.

argparse takes as long to import as all checks together take to run.
"""

from __future__ import annotations

import gc
import os
import sys

if __name__ == "__main__":
    # What is imported stays, and a pass is over before there is garbage worth a search.
    gc.disable()
    # Started as a file, with -I: nothing of ours is on the path yet, and nothing else shall come onto it.
    # `lib/current` is resolved, so that one pass stays with one version while another is installed.
    sys.path.insert(0, os.path.realpath(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

import time

from trainmaster.health import acting, node, registry, report, runner

FLAGS = ("json", "prometheus", "verbose", "forget", "act", "dry-run", "hourly")
VALUES = ("set", "only", "skip", "profile", "state", "root", "budget", "textfile", "log")


def parse(words: list[str]) -> tuple[dict[str, list[str]], str]:
    """Options by name, and what is wrong with them. Pure.

    >>> parse(["--only=gpu", "--json"])
    ({'only': ['gpu'], 'json': ['']}, '')
    """
    options: dict[str, list[str]] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--") or name not in FLAGS + VALUES:
            return options, f"{word!r} is not understood"
        if name in VALUES and not equals:
            if not left:
                return options, f"{word} needs a value"
            value = left.pop(0)
        options.setdefault(name, []).append(value)
    return options, ""


def options_of(words: list[str], *, budget_s: float = node.Options().budget_s) -> tuple[node.Options, dict[str, str]]:
    """The options of a pass, and all words by name. Raises ValueError for what is wrong with them."""
    options, fault = parse(words)
    given = {name: values[-1] for name, values in options.items()}
    if fault:
        raise ValueError(fault)
    if given.get("set") == "deep":
        budget_s = runner.DEEP_BUDGET_S
    try:
        budget_s = float(given.get("budget", budget_s))
    except ValueError:
        raise ValueError(f"--budget is {given['budget']!r}, not seconds") from None
    if given.get("set", "fast") not in registry.SETS:
        raise ValueError(f"--set is one of {', '.join(registry.SETS)}, not {given['set']!r}")
    defaults = node.Options()
    chosen = defaults._replace(
        root=given.get("root", "").rstrip("/"),
        profile=given.get("profile", defaults.profile),
        state=given.get("state", defaults.state),
        only=tuple(options.get("only", ())),
        skip=tuple(options.get("skip", ())),
        set=given.get("set", "fast"),
        budget_s=budget_s,
        forget="forget" in given,
        hourly="hourly" in given,
    )
    return chosen, given


def check(words: list[str]) -> int:
    """Run the checks and print; returns the exit code."""
    try:
        options, given = options_of(words)
    except ValueError as fault:
        sys.stderr.write(f"trainmaster health: {fault}\n")
        return 2
    acted = acting.look_and_act(
        options, act="act" in given, dry_run="dry-run" in given, textfile=given.get("textfile", "")
    )
    result, name = acted.result, acting.node_name()
    if "act" in given:
        told = [f"slurm: {acted.said}", acted.requeued, acted.remarked]
        sys.stderr.write("".join(f"{words}\n" for words in told if words))
    if "log" in given:
        # As HealthCheckProgram: what slurmd would print into its own log at every pass, only when there is something.
        acting.log(given["log"], acted, "health check")
    elif "json" in given:
        sys.stdout.write(report.as_json_lines(result, node=name, epoch_s=time.time()) + "\n")
    elif "prometheus" in given:
        sys.stdout.write(report.as_prometheus(result, epoch_s=time.time()))
    else:
        sys.stdout.write(report.as_text(result, verbose="verbose" in given) + "\n")
    return result.decision.exit_code


def main(argv: list[str]) -> int:
    """`check` and its options; `prolog` and `epilog` for those hooks."""
    if argv and argv[0] == "check":
        return check(argv[1:])
    if argv and argv[0] in ("prolog", "epilog"):
        try:
            if argv[0] == "prolog":
                from trainmaster.health import prolog

                options, given = options_of(argv[1:], budget_s=prolog.BUDGET_S)
                return prolog.run(options, log=given.get("log", ""))
            from trainmaster.health import epilog

            options, given = options_of(argv[1:])
            return epilog.run(options, log=given.get("log", ""))
        except ValueError as fault:
            sys.stderr.write(f"trainmaster health: {fault}\n")
            return 2
    sys.stderr.write("usage: check [--set SET] [--only ID] [--skip ID] [--json|--prometheus] [--act [--hourly]]\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
