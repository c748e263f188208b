"""Holds the running configuration of Slurm against what the health hooks need. Pure but for a look at the hooks' files.

Sources: slurm.conf(5) of 22.05 to 26.05; what 22.05.8 does was tried (tests/cluster/test_health_hooks.py).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOOKS = {
    "Prolog": "prolog",
    "Epilog": "epilog",
    "HealthCheckProgram": "health_check_program",
    "TaskProlog": "task_prolog",
}
# A pass, and Slurm's answer after it (health/runner.py, health/enforce.py).
_PASS_S = 55
_HOOK_S = 60
_UNSET = ("", "(null)", "n/a", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing about the configuration."""

    key: str
    fault: bool
    """The hooks do not work so; otherwise they work less well than they could."""
    seen: str
    why: str
    write: str
    """The line for slurm.conf, or the command."""


def words(text: str) -> set[str]:
    """The words of a comma list, without regard to case. Pure.

    >>> sorted(words("Alloc,Contain"))
    ['alloc', 'contain']
    """
    return {word.strip().lower() for word in text.split(",") if word.strip()}


def seconds(text: str) -> int | None:
    """`60 sec`, `120`; None for what is not set, which Slurm shows as 65534 or as a word. Pure.

    >>> seconds("60 sec"), seconds("65534 sec"), seconds("INFINITE")
    (60, None, None)
    """
    found = re.match(r"\d+", text)
    return int(found[0]) if found is not None and int(found[0]) not in (65534, 65535) else None


def lint(config: Mapping[str, str]) -> list[Advice]:
    """All that is to be said about settings. Pure."""
    found = [*_paths(config)]
    if config.get("Prolog", "").lower() not in _UNSET:
        found += _prolog(config)
    if config.get("HealthCheckProgram", "").lower() not in _UNSET:
        found += _health_check(config)
    return found


def _paths(config: Mapping[str, str]) -> list[Advice]:
    return [
        Advice(
            key=key,
            fault=key != "TaskProlog",
            seen="not set",
            why=f"the hook {name} is not run",
            write=f"{key}=<prefix>/hooks/{name}   (`trainmaster install hooks --prefix <prefix>`)",
        )
        for key, name in HOOKS.items()
        if config.get(key, "").lower() in _UNSET
    ]


def _prolog(config: Mapping[str, str]) -> list[Advice]:
    found = []
    scheduler = config.get("SchedulerParameters", "")
    if "nohold_on_prolog_fail" not in words(scheduler):
        chosen = scheduler if scheduler.lower() not in _UNSET else ""
        found.append(
            Advice(
                key="SchedulerParameters",
                fault=True,
                seen=scheduler or "not set",
                why="a job that the prolog refused is held until somebody releases it, instead of starting elsewhere",
                write="SchedulerParameters=" + ",".join(filter(None, [chosen, "nohold_on_prolog_fail"])),
            )
        )
    flags = config.get("PrologFlags", "")
    if not words(flags) & {"alloc", "contain", "x11", "nohold"}:
        chosen = flags if flags.lower() not in _UNSET else ""
        found.append(
            Advice(
                key="PrologFlags",
                fault=True,
                seen=flags or "not set",
                why="the prolog waits for the first step: a bad node is found when the job already runs on the others",
                write="PrologFlags=" + ",".join(filter(None, [chosen, "Alloc"])),
            )
        )
    limits = [key for key in ("PrologTimeout", "EpilogTimeout", "PrologEpilogTimeout") if seconds(config.get(key, ""))]
    if not limits:
        found.append(
            Advice(
                key="PrologEpilogTimeout",
                fault=False,
                seen=config.get("PrologEpilogTimeout", "not set"),
                why="a hook that hangs, of whatever origin, holds its job for ever; ours end within 60 s",
                write="PrologEpilogTimeout=120",
            )
        )
    for key in limits:
        limit_s = seconds(config[key])
        if limit_s is not None and limit_s < _HOOK_S:
            found.append(
                Advice(
                    key=key,
                    fault=True,
                    seen=config[key],
                    why=f"when something hangs our hooks need up to {_HOOK_S} s; if killed, they drain nodes",
                    write=f"{key}=120",
                )
            )
    return found


def _health_check(config: Mapping[str, str]) -> list[Advice]:
    found = []
    interval_s = seconds(config.get("HealthCheckInterval", "")) or 0
    if interval_s == 0:
        found.append(
            Advice(
                key="HealthCheckInterval",
                fault=True,
                seen="0",
                why="the health check is off",
                write="HealthCheckInterval=60",
            )
        )
    elif interval_s < _PASS_S:
        found.append(
            Advice(
                key="HealthCheckInterval",
                fault=False,
                seen=config["HealthCheckInterval"],
                why=f"a pass may take {_PASS_S} s when something hangs, and the next begins before it is over",
                write="HealthCheckInterval=60",
            )
        )
    limit_s = seconds(config.get("HealthCheckTimeout", ""))
    if limit_s is not None and limit_s < _HOOK_S:
        found.append(
            Advice(
                key="HealthCheckTimeout",
                fault=True,
                seen=config["HealthCheckTimeout"],
                why=f"a pass may take {_PASS_S} s when something hangs; killed, it drains nothing",
                write="HealthCheckTimeout=60",
            )
        )
    states = words(config.get("HealthCheckNodeState", ""))
    if not states & {"any"} and not {"idle", "alloc", "mixed"} <= states:
        found.append(
            Advice(
                key="HealthCheckNodeState",
                fault=False,
                seen=config.get("HealthCheckNodeState", "not set"),
                why="nodes in other states are not looked at: what breaks under a job is found after it",
                write="HealthCheckNodeState=ANY,CYCLE",
            )
        )
    elif "cycle" not in states:
        found.append(
            Advice(
                key="HealthCheckNodeState",
                fault=False,
                seen=config.get("HealthCheckNodeState", ""),
                why="without CYCLE all nodes look at the same moment, and a job on many of them waits for the slowest",
                write="HealthCheckNodeState=" + ",".join([*sorted(word.upper() for word in states), "CYCLE"]),
            )
        )
    return found


def hooks_here(config: Mapping[str, str]) -> list[Advice]:
    """What is wrong with the hooks' files as this machine sees them; the nodes should see the same."""
    found = []
    for key, name in HOOKS.items():
        text = config.get(key, "")
        if text.lower() in _UNSET:
            continue
        path = Path(text)
        installed = path.parent.parent
        trouble, remedy = "", f"trainmaster install hooks --prefix {installed}"
        if not path.is_file():
            trouble = "there is no such file on this machine"
        elif not os.access(path, os.X_OK):
            trouble, remedy = "it cannot be executed", f"chmod 755 {path}"
        elif path.name != name or not (installed / "site.sh").is_file():
            trouble = f"it is not our {name}: chain ours from it, or put ours there"
        elif not (installed / "lib/current/trainmaster/health/__main__.py").is_file():
            trouble = f"the checks that it starts are not below {installed}/lib/current"
        if trouble:
            ours = "not our" not in trouble
            found.append(Advice(key=key, fault=ours, seen=text, why=trouble, write=remedy))
    return found
