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
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import time

from trainmaster.health import node, registry, report

FLAGS = ("json", "prometheus", "verbose", "forget", "act", "dry-run")
VALUES = ("set", "only", "skip", "profile", "state", "root", "budget")


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


def check(words: list[str]) -> int:
    """Run the checks and print; returns the exit code."""
    options, fault = parse(words)
    given = {name: values[-1] for name, values in options.items()}
    try:
        budget_s = float(given.get("budget", node.Options().budget_s))
    except ValueError:
        fault = fault or f"--budget is {given['budget']!r}, not seconds"
    if given.get("set", "fast") not in registry.SETS:
        fault = fault or f"--set is one of {', '.join(registry.SETS)}, not {given['set']!r}"
    if fault:
        sys.stderr.write(f"trainmaster health: {fault}\n")
        return 2
    defaults = node.Options()
    result = node.run(
        defaults._replace(
            root=given.get("root", "").rstrip("/"),
            profile=given.get("profile", defaults.profile),
            state=given.get("state", defaults.state),
            only=tuple(options.get("only", ())),
            skip=tuple(options.get("skip", ())),
            set=given.get("set", "fast"),
            budget_s=budget_s,
            forget="forget" in given,
        )
    )
    now_s = time.time()
    name = os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
    if "act" in given:
        from trainmaster.health import enforce

        said, _ = enforce.enforce(
            result.decision,
            folder=given.get("root", "").rstrip("/") + given.get("state", defaults.state),
            node=name,
            boot_id=result.state.boot_id,
            dry_run="dry-run" in given,
        )
        sys.stderr.write(f"slurm: {said}\n")
    if "json" in given:
        sys.stdout.write(report.as_json_lines(result, node=name, epoch_s=now_s) + "\n")
    elif "prometheus" in given:
        sys.stdout.write(report.as_prometheus(result, epoch_s=now_s))
    else:
        sys.stdout.write(report.as_text(result, verbose="verbose" in given) + "\n")
    return result.decision.exit_code


def main(argv: list[str]) -> int:
    """`check` and its options."""
    if not argv or argv[0] != "check":
        sys.stderr.write("usage: check [--set fast|full|deep] [--only ID] [--skip ID] [--json|--prometheus] [--act]\n")
        return 2
    return check(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
