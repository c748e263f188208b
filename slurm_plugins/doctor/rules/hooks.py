"""Whether Slurm runs the health hooks as they need it. 22.05.8 was tried (tests/cluster/test_health_hooks.py)."""

from collections.abc import Iterator

from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity

HOOKS = {
    "Prolog": "prolog",
    "Epilog": "epilog",
    "HealthCheckProgram": "health_check_program",
    "TaskProlog": "task_prolog",
}
"""The settings that name a hook of ours, and its file's name."""

# A pass, and Slurm's answer after it (health/runner.py, health/enforce.py).
PASS_S = 55
HOOK_S = 60
_INSTALL = "`trainmaster install hooks --prefix <prefix>`"


def _unset(key: str, facts: Facts) -> Iterator[Hit]:
    if not facts.text(key):
        yield Hit(seen=facts.shown(key), mend=f"{key}=<prefix>/hooks/{HOOKS[key]}   ({_INSTALL})")


def _some_of_ours(facts: Facts) -> Iterator[Hit]:
    named = {key: facts.text(key) for key in HOOKS}
    folders = {text.rpartition("/")[0] for key, text in named.items() if text.endswith(f"/hooks/{HOOKS[key]}")}
    if not folders:
        return
    for key in HOOKS:
        if not named[key]:
            yield Hit(seen=facts.shown(key), mend=f"{key}={min(folders)}/{HOOKS[key]}")


def _held(facts: Facts) -> Iterator[Hit]:
    if facts.text("Prolog") and "nohold_on_prolog_fail" not in facts.words("SchedulerParameters"):
        mend = facts.with_word("SchedulerParameters", "nohold_on_prolog_fail")
        yield Hit(seen=facts.shown("SchedulerParameters"), mend=mend)


def _late(facts: Facts) -> Iterator[Hit]:
    if facts.text("Prolog") and not {"alloc", "contain", "x11", "nohold"} & set(facts.words("PrologFlags")):
        yield Hit(seen=facts.shown("PrologFlags"), mend=facts.with_word("PrologFlags", "Alloc"))


def _one_by_one(facts: Facts) -> Iterator[Hit]:
    if "serial" in facts.words("PrologFlags"):
        kept = [word for word in facts.text("PrologFlags").split(",") if word.strip().lower() != "serial"]
        yield Hit(seen=facts.shown("PrologFlags"), mend="PrologFlags=" + (",".join(kept) or "Alloc"))


_LIMITS = ("PrologTimeout", "EpilogTimeout", "PrologEpilogTimeout")


def _no_limit(facts: Facts) -> Iterator[Hit]:
    hooks = [key for key in ("Prolog", "Epilog", "PrologSlurmctld", "EpilogSlurmctld") if facts.text(key)]
    if hooks and all(facts.number(key) is None for key in _LIMITS):
        yield Hit(seen=facts.shown("PrologEpilogTimeout"), mend="PrologEpilogTimeout=120")


def _short_limit(facts: Facts) -> Iterator[Hit]:
    if not (facts.text("Prolog") or facts.text("Epilog")):
        return
    for key in _LIMITS:
        limit_s = facts.number(key)
        if limit_s is not None and limit_s < HOOK_S:
            yield Hit(seen=facts.shown(key), mend=f"{key}=120")


def _checked(facts: Facts) -> bool:
    return bool(facts.text("HealthCheckProgram"))


def _off(facts: Facts) -> Iterator[Hit]:
    if _checked(facts) and not facts.number("HealthCheckInterval"):
        yield Hit(seen=facts.shown("HealthCheckInterval"), mend="HealthCheckInterval=60")


def _often(facts: Facts) -> Iterator[Hit]:
    interval_s = facts.number("HealthCheckInterval") or 0
    if _checked(facts) and 0 < interval_s < PASS_S:
        yield Hit(seen=facts.shown("HealthCheckInterval"), mend="HealthCheckInterval=60")


def _killed(facts: Facts) -> Iterator[Hit]:
    # slurmctld of 26.05.5 shows 0 where nothing is set, which is 60 s.
    limit_s = facts.number("HealthCheckTimeout") or HOOK_S
    if _checked(facts) and limit_s < HOOK_S:
        yield Hit(seen=facts.shown("HealthCheckTimeout"), mend="HealthCheckTimeout=60")


def _overlap(facts: Facts) -> Iterator[Hit]:
    interval_s, limit_s = facts.number("HealthCheckInterval") or 0, facts.number("HealthCheckTimeout") or 60
    if _checked(facts) and interval_s >= PASS_S and limit_s >= interval_s:
        seen = f"{facts.shown('HealthCheckInterval')} {facts.shown('HealthCheckTimeout')}"
        yield Hit(seen=seen, mend=f"HealthCheckInterval={limit_s + 30}")


def _unseen(facts: Facts) -> Iterator[Hit]:
    states = set(facts.words("HealthCheckNodeState")) - {"cycle"}
    if _checked(facts) and "any" not in states and not {"idle", "alloc", "mixed"} <= states and states:
        yield Hit(seen=facts.shown("HealthCheckNodeState"), mend="HealthCheckNodeState=ANY,CYCLE")


def _together(facts: Facts) -> Iterator[Hit]:
    states = facts.words("HealthCheckNodeState")
    if _checked(facts) and "cycle" not in states and not any(word.endswith("_only") for word in states):
        kept = [word.upper() for word in states] or ["ANY"]
        yield Hit(seen=facts.shown("HealthCheckNodeState"), mend=f"HealthCheckNodeState={','.join([*kept, 'CYCLE'])}")


RULES = (
    Rule(
        id="health-check-missing", severity=Severity.FAULT, setting="HealthCheckProgram",
        why="nobody looks at the nodes: what breaks is found by the jobs that die of it",
        source="slurm.conf(5), HealthCheckProgram", check=lambda facts: _unset("HealthCheckProgram", facts),
    ),
    Rule(
        id="prolog-missing", severity=Severity.ADVICE, setting="Prolog",
        why="a job is given to a node that broke since the last look, and dies there instead of starting elsewhere",
        source="slurm.conf(5), Prolog", check=lambda facts: _unset("Prolog", facts),
    ),
    Rule(
        id="epilog-missing", severity=Severity.ADVICE, setting="Epilog",
        why="what a job leaves behind (processes, shared memory, GPU memory) is met by the next one",
        source="slurm.conf(5), Epilog", check=lambda facts: _unset("Epilog", facts),
    ),
    Rule(
        id="hooks-incomplete", severity=Severity.ADVICE, setting="Prolog, Epilog, HealthCheckProgram, TaskProlog",
        why="the hooks rely on one another: the epilog cleans what the prolog would refuse, the task prolog tells what "
        "the health check only warns of",
        source="docs/install-health.md", check=_some_of_ours,
    ),
    Rule(
        id="prolog-hold", severity=Severity.FAULT, setting="SchedulerParameters",
        why="a job that a prolog refused is held until somebody releases it, instead of starting elsewhere",
        source="slurm.conf(5), nohold_on_prolog_fail; seen on 22.05.8, 24.11.5 and 26.05.5", check=_held,
    ),
    Rule(
        id="prolog-late", severity=Severity.FAULT, setting="PrologFlags",
        why="the prolog waits for the first step: a bad node is found when the job already runs on the others",
        source="slurm.conf(5), PrologFlags", check=_late,
    ),
    Rule(
        id="prolog-serial", severity=Severity.ADVICE, setting="PrologFlags",
        why="prologs and epilogs of a node run one after the other, and a slow one holds up its neighbours' jobs",
        source="slurm.conf(5), PrologFlags=Serial", check=_one_by_one,
    ),
    Rule(
        id="prolog-no-limit", severity=Severity.ADVICE, setting="PrologEpilogTimeout",
        why="a prolog or epilog that hangs, of whatever origin, holds its job and its node for ever",
        source="slurm.conf(5), PrologEpilogTimeout", check=_no_limit,
    ),
    Rule(
        id="prolog-short-limit", severity=Severity.FAULT, setting="PrologEpilogTimeout",
        why=f"when something hangs our hooks need up to {HOOK_S} s; killed before, they drain the node",
        source="slurm.conf(5), PrologEpilogTimeout; health/runner.py", check=_short_limit,
    ),
    Rule(
        id="health-check-off", severity=Severity.FAULT, setting="HealthCheckInterval",
        why="an interval of 0 means never", source="slurm.conf(5), HealthCheckInterval", check=_off,
    ),
    Rule(
        id="health-check-often", severity=Severity.ADVICE, setting="HealthCheckInterval",
        why=f"a pass may take {PASS_S} s when something hangs, and the next begins before it is over",
        source="slurm.conf(5), HealthCheckInterval; health/runner.py", check=_often,
    ),
    Rule(
        id="health-check-killed", severity=Severity.FAULT, setting="HealthCheckTimeout",
        why=f"a pass may take {PASS_S} s when something hangs; killed, it drains nothing",
        source="slurm.conf(5) of 26.05, HealthCheckTimeout", check=_killed, since=(26, 5),
    ),
    Rule(
        id="health-check-overlap", severity=Severity.ADVICE, setting="HealthCheckInterval",
        why="slurmd logs an error at each start while the limit of a pass is not below the interval",
        source="slurm.conf(5) of 26.05, HealthCheckTimeout; seen on 26.05.5", check=_overlap, since=(26, 5),
    ),
    Rule(
        id="health-check-states", severity=Severity.ADVICE, setting="HealthCheckNodeState",
        why="nodes in other states are not looked at: what breaks under a job is found after it",
        source="slurm.conf(5), HealthCheckNodeState", check=_unseen,
    ),
    Rule(
        id="health-check-together", severity=Severity.ADVICE, setting="HealthCheckNodeState",
        why="without CYCLE all nodes look at the same moment, and a job on many of them waits for the slowest",
        source="slurm.conf(5), HealthCheckNodeState", check=_together,
    ),
)  # fmt: skip
