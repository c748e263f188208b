"""Who may do what, where the state lies, and settings that this release does not know."""

from collections.abc import Iterator

from trainmaster.slurm import versions
from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity


def _open(facts: Facts) -> Iterator[Hit]:
    for key in ("AuthType", "CredType"):
        if facts.settings.get(key.lower(), "").strip().lower().endswith("/none"):
            yield Hit(
                seen=f"{key}={facts.settings[key.lower()]}", mend=f"{key}={key.lower().removesuffix('type')}/munge"
            )


def _ttl_short(facts: Facts) -> Iterator[Hit]:
    told = facts.option("AuthInfo", "ttl") or ""
    if told.isdecimal() and 0 < int(told) < 60:
        yield Hit(seen=f"ttl={told}", mend=facts.with_word("AuthInfo", "ttl=300"))


def _ttl_long(facts: Facts) -> Iterator[Hit]:
    told = facts.option("AuthInfo", "ttl") or ""
    if told.isdecimal() and int(told) > 3600:
        yield Hit(seen=f"ttl={told}", mend=facts.with_word("AuthInfo", "ttl=300"))


def _root(facts: Facts) -> Iterator[Hit]:
    if facts.text("SlurmUser").partition("(")[0] in ("root", "0"):
        yield Hit(seen=facts.shown("SlurmUser"), mend="SlurmUser=slurm")


def _state(facts: Facts) -> Iterator[Hit]:
    place = facts.text("StateSaveLocation")
    if place.startswith(("/tmp", "/var/tmp", "/dev/shm", "/run")):
        yield Hit(seen=facts.shown("StateSaveLocation"), mend="StateSaveLocation=/var/spool/slurmctld")


def _spool(facts: Facts) -> Iterator[Hit]:
    place = facts.text("SlurmdSpoolDir")
    if place.startswith(("/tmp", "/var/tmp", "/dev/shm")):
        yield Hit(seen=facts.shown("SlurmdSpoolDir"), mend="SlurmdSpoolDir=/var/spool/slurmd")


def _gone(facts: Facts) -> Iterator[Hit]:
    for key in sorted(facts.given):
        told = versions.standing(facts.version, key)
        if told.startswith("gone"):
            yield Hit(seen=f"{key}, {told}; this is {versions.name(facts.version)}", mend=f"take {key} out")


def _too_new(facts: Facts) -> Iterator[Hit]:
    for key in sorted(facts.given):
        told = versions.standing(facts.version, key)
        if told.startswith("known"):
            yield Hit(seen=f"{key}, {told}; this is {versions.name(facts.version)}", mend=f"take {key} out")


def _plugin_gone(facts: Facts) -> Iterator[Hit]:
    kind = facts.text("SelectType").lower().removeprefix("select/")
    if kind == "cons_res" and facts.version >= (23, 11):
        yield Hit(seen=facts.shown("SelectType"), mend="SelectType=select/cons_tres")


def _automount(facts: Facts) -> Iterator[Hit]:
    if "cgroupautomount" in facts.cgroup and facts.version >= (23, 11):
        yield Hit(seen="CgroupAutomount in cgroup.conf", mend="take it out of cgroup.conf")


RULES = (
    Rule(
        id="auth-none", severity=Severity.FAULT, setting="AuthType",
        why="anybody who reaches slurmctld is whoever they say they are, root too",
        source="slurm.conf(5), AuthType", check=_open,
    ),
    Rule(
        id="munge-age-short", severity=Severity.FAULT, setting="AuthInfo",
        why="credentials of busy daemons, or of nodes whose clocks differ, are too old when they are read",
        source="slurm.conf(5), AuthInfo=ttl; munge(7)", check=_ttl_short,
    ),
    Rule(
        id="munge-age-long", severity=Severity.ADVICE, setting="AuthInfo",
        why="a credential that somebody caught can be used again for so long",
        source="slurm.conf(5), AuthInfo=ttl; munge(7)", check=_ttl_long,
    ),
    Rule(
        id="slurm-user-root", severity=Severity.ADVICE, setting="SlurmUser",
        why="slurmctld needs no root, and what speaks with the whole cluster should not have it",
        source="slurm.conf(5), SlurmUser", check=_root, real_nodes=True,
    ),
    Rule(
        id="state-volatile", severity=Severity.FAULT, setting="StateSaveLocation",
        why="the queue, with every running job, is gone when the machine boots or somebody cleans up",
        source="slurm.conf(5), StateSaveLocation", check=_state, real_nodes=True,
    ),
    Rule(
        id="spool-volatile", severity=Severity.FAULT, setting="SlurmdSpoolDir",
        why="whoever cleans up there takes running jobs' scripts and credentials with it",
        source="slurm.conf(5), SlurmdSpoolDir", check=_spool, real_nodes=True,
    ),
    Rule(
        id="setting-gone", severity=Severity.FAULT, setting="slurm.conf",
        why="this release does not know it any more: it is an error in the log, or the end of the daemons' start",
        source="src/common/read_config.c of each release; slurm/versions.py", check=_gone,
    ),
    Rule(
        id="setting-too-new", severity=Severity.FAULT, setting="slurm.conf",
        why="a setting that a release does not know ends slurmctld and slurmd at their start",
        source="src/common/read_config.c of each release; slurm/versions.py", check=_too_new,
    ),
    Rule(
        id="select-cons-res", severity=Severity.FAULT, setting="SelectType",
        why="the plug-in was taken out of 23.11: slurmctld does not start",
        source="Slurm's release notes of 23.11", check=_plugin_gone,
    ),
    Rule(
        id="cgroup-automount", severity=Severity.ADVICE, setting="cgroup.conf",
        why="the option is defunct since 23.11, and each daemon logs an error for it at its start",
        source="src/interfaces/cgroup.c of 23.11", check=_automount,
    ),
)  # fmt: skip
