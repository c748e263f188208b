"""What doctor says of a configuration."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.slurm import parse
from trainmaster.slurm_plugins import doctor, install

GOOD = {
    "Prolog": "/o/hooks/prolog",
    "Epilog": "/o/hooks/epilog",
    "TaskProlog": "/o/hooks/task_prolog",
    "HealthCheckProgram": "/o/hooks/health_check_program",
    "HealthCheckInterval": "60 sec",
    "HealthCheckNodeState": "CYCLE,ANY",
    "PrologFlags": "Alloc,Contain",
    "PrologEpilogTimeout": "120",
    "SchedulerParameters": "bf_continue,nohold_on_prolog_fail",
}


def test_a_good_configuration_needs_nothing() -> None:
    assert doctor.lint(GOOD) == []
    # 25.05 and later have two of them; 26.05 has a time-out for the health check.
    newer = {**GOOD, "PrologEpilogTimeout": "65534", "PrologTimeout": "90", "HealthCheckTimeout": "60 sec"}
    assert doctor.lint(newer) == []


def test_the_fragment_that_is_installed_satisfies_the_doctor() -> None:
    lines = install.fragment_text(Path("/o")).splitlines()
    assert doctor.lint(dict(line.split("=", 1) for line in lines if not line.startswith("#"))) == []


@pytest.mark.parametrize(
    ("key", "value", "fault", "write"),
    [
        ("SchedulerParameters", "(null)", True, "SchedulerParameters=nohold_on_prolog_fail"),
        ("SchedulerParameters", "bf_continue", True, "SchedulerParameters=bf_continue,nohold_on_prolog_fail"),
        ("PrologFlags", "(null)", True, "PrologFlags=Alloc"),
        ("PrologFlags", "Serial", True, "PrologFlags=Serial,Alloc"),
        ("PrologEpilogTimeout", "65534", False, "PrologEpilogTimeout=120"),
        ("PrologEpilogTimeout", "30", True, "PrologEpilogTimeout=120"),
        ("HealthCheckInterval", "0 sec", True, "HealthCheckInterval=60"),
        ("HealthCheckInterval", "30 sec", False, "HealthCheckInterval=60"),
        ("HealthCheckNodeState", "IDLE", False, "HealthCheckNodeState=ANY,CYCLE"),
        ("HealthCheckNodeState", "ANY", False, "HealthCheckNodeState=ANY,CYCLE"),
        ("HealthCheckTimeout", "30 sec", True, "HealthCheckTimeout=60"),
    ],
)
def test_one_thing_that_is_wrong(key: str, value: str, fault: bool, write: str) -> None:
    (advice,) = doctor.lint({**GOOD, key: value})
    assert (advice.key, advice.fault, advice.write) == (key, fault, write) and advice.why


def test_hooks_that_are_not_set() -> None:
    found = doctor.lint({})
    assert {(advice.key, advice.fault) for advice in found} == {
        ("Prolog", True), ("Epilog", True), ("HealthCheckProgram", True), ("TaskProlog", False)
    }  # fmt: skip


def test_hooks_as_files(tmp_path: Path) -> None:
    prefix = tmp_path / "opt"
    install.apply(install.plan(prefix, install.Site()))
    config = {key: str(prefix / "hooks" / name) for key, name in doctor.HOOKS.items()}
    assert doctor.hooks_here(config) == []
    (prefix / "hooks/prolog").chmod(0o644)
    (advice,) = doctor.hooks_here(config)
    assert advice.fault and advice.write == f"chmod 755 {prefix}/hooks/prolog"
    (advice,) = doctor.hooks_here({"Epilog": "/bin/true"})
    assert not advice.fault and "not our epilog" in advice.why
    (advice,) = doctor.hooks_here({"Epilog": f"{tmp_path}/gone/hooks/epilog"})
    assert advice.fault and "no such file" in advice.why


@given(st.dictionaries(st.sampled_from(sorted({*GOOD, "HealthCheckTimeout"})), st.text()))
def test_whatever_stands_there_is_no_crash(config: dict[str, str]) -> None:
    for advice in doctor.lint(config):
        assert advice.key in advice.write


@given(st.text())
def test_whatever_scontrol_prints(text: str) -> None:
    assert all("=" not in key for key in parse.config(text))
