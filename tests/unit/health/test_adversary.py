"""What an hour of trying to drain a good node, to miss a fault and to make the hooks leak has found."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recorded_h100 import DRAIN, REQUEUE, judge, told
from trainmaster.health import acting, check_pass, children, node, runner
from trainmaster.health.check import Check, Context, Place, Source
from trainmaster.health.checks import host_stray, ib_counters, ib_present, ib_state
from trainmaster.health.finding import Finding, warn
from trainmaster.health.profile import Profile
from trainmaster.health.sources import space
from trainmaster.health.state import State
from trainmaster.lab import fakeroot


def wait(place: Place) -> Any:
    time.sleep(600)


def hanging(**given: Any) -> runner.Reading:
    """A source that hangs, in a child that nothing can kill."""
    source = Source(name="slow", about="", read=wait, deadline_s=0.1)
    return runner.read_all([source], lambda source: Place(), kill=lambda pid, number: None, **given)["slow"]


def test_passes_do_not_pile_up_processes_that_cannot_be_killed() -> None:
    first = hanging()
    assert first.state == "hung" and children.lives(first.value)
    try:
        again = hanging(stuck={"slow": first.value})
        assert again.state == "hung" and again.value == first.value and "still hangs" in again.detail
        assert again.ms == 0, "nobody was asked"
        # A later process with its number is not taken for it.
        assert not children.lives([first.value[0], first.value[1] + 1])
    finally:
        os.kill(first.value[0], signal.SIGKILL)
        os.waitpid(first.value[0], 0)
    later = hanging(stuck={"slow": first.value})
    assert later.value != first.value
    os.kill(later.value[0], signal.SIGKILL)
    os.waitpid(later.value[0], 0)


def test_a_pass_remembers_what_it_abandoned_until_it_is_gone() -> None:
    check = Check("a.b", "", (Source(name="slow", about="", read=wait),), lambda context, value: [])
    hung = runner.Reading("hung", [4711, 12])
    after = check_pass.remembered([check], {"slow": hung}, profile=Profile({}), state=State(), now_s=1.0)
    assert after.stuck == {"slow": [4711, 12]}
    kept = check_pass.remembered([], {}, profile=Profile({}), state=after, now_s=1.0)
    assert kept.stuck == after.stuck, "a pass that did not look at it"
    well = {"slow": runner.Reading("ok", 1)}
    assert check_pass.remembered([check], well, profile=Profile({}), state=after, now_s=1.0).stuck == {}


@pytest.mark.parametrize("known", [None, 7, [], [1], ["1", 2], [1, 2, 3], {"a": 1}, [-1, 0], [10**9, 1]])
def test_a_damaged_note_of_an_abandoned_process(known: Any) -> None:
    assert not children.lives(known)


def test_a_mount_that_hangs_is_not_asked_by_one_more_process_each_pass(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "27 1 254:0 / / rw - ext4 /dev/x rw\n40 27 0:40 / /s rw - nfs4 n:/s rw\n"
    )
    profile = Profile({"mounts": {"/s": {"type": "nfs4"}}})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stuck:
        known = children.identity(stuck.pid)
        value = space.read(Place(str(tmp_path), profile, {"/s": known, "/gone": known}))
        assert value["/s"] == {"hung": True, "in": "", "child": known} and space.remember(value) == {"/s": known}
        stuck.kill()
    value = space.read(Place(str(tmp_path), profile, {"/s": known}))
    assert "hung" not in value["/s"] and space.remember(value) == {}


def test_memory_of_another_version_costs_neither_the_pass_nor_the_check() -> None:
    # A check whose memory had another form raised in `remember`, and the pass with it.
    def remember(context: Context, value: Any) -> Any:
        return {"seen": (context.memory or {"seen": 0})["seen"] + 1}

    def verdict(context: Context, value: Any) -> list[Finding]:
        return [warn("seen")] if context.memory is not None and context.memory["seen"] else []

    check = Check("a.b", "", (Source(name="s", about="", read=lambda place: 1),), verdict, remember)
    state = State(checks={"a.b": {"other": 1}})
    result = check_pass.run([check], profile=Profile({}), state=state)
    assert [finding.verdict.value for finding in result.decision.findings] == ["ok"]
    assert "a.b" not in result.state.checks


PORT = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "counters": {"symbol_error": 0}}


def adapter(symbols: int) -> dict[str, Any]:
    return {"mlx5_0": {"node_guid": "g", "ports": {"1": {**PORT, "counters": {"symbol_error": symbols}}}}}


def test_a_clock_that_was_set_back_does_not_stop_rates_from_being_judged() -> None:
    memory = ib_counters.remember(Context(Profile({}), None, 2e9), adapter(0))
    # An hour back: the baseline was taken in the future, and was kept until then.
    memory = ib_counters.remember(Context(Profile({}), memory, 2e9 - 3600), adapter(0))
    assert told(judge(ib_counters.CHECK, adapter(5000), memory=memory, now_s=2e9 - 3000)) != []


def test_a_clock_that_was_set_back_does_not_restart_what_is_waited_for() -> None:
    waiting = {"mlx5_0": {"node_guid": "g", "ports": {"1": {**PORT, "state": "2: INIT"}}}}
    memory = ib_state.remember(Context(Profile({}), {"mlx5_0/1": 2e9}, 1e9), waiting)
    assert told(judge(ib_state.CHECK, waiting, memory=memory, now_s=1e9 + 100)) == [DRAIN]
    table = {"left": [[7, 4000, "a", "D", True]], "people": [], "jobs": []}
    nothing = {"shm": {}, "cgroups": {}}
    memory = host_stray.remember(Context(Profile({}), {"pid 7": 2e9}, 1e9), table, nothing)
    assert told(judge(host_stray.CHECK, table, nothing, memory=memory, now_s=1e9 + 100)) == [DRAIN]


def test_adapters_whose_driver_is_not_loaded_yet_come_back_without_a_boot() -> None:
    # During a boot, or while the driver is exchanged: a drain until the next boot would lose a good node.
    expected = {"mlx5_0": {}, "mlx5_1/1": {}}
    assert told(judge(ib_present.CHECK, {}, [], ib=expected)) == [DRAIN, DRAIN]
    assert told(judge(ib_present.CHECK, adapter(0), [], ib=expected)) == [REQUEUE]


def test_a_look_by_hand_leaves_to_the_hook_what_it_was_the_first_to_see(tmp_path: Path) -> None:
    fakeroot.create(tmp_path, node_name="n01", gpus=2)
    counters = [tmp_path / f"sys/class/infiniband/mlx5_{number}/ports/1/counters" for number in range(2)]
    look = node.Options(root=str(tmp_path), only=("ib.counters",))
    hook = look._replace(acts=True)

    def faults(options: node.Options) -> set[str]:
        return {finding.key for finding in node.run(options).decision.findings if finding.bad}

    assert not faults(look) and not faults(hook)
    (counters[0] / "local_link_integrity_errors").write_text("4\n")
    (first,) = faults(look)
    assert faults(hook) == {first}
    (counters[1] / "local_link_integrity_errors").write_text("4\n")
    dry = acting.look_and_act(look, act=True, dry_run=True).result.decision.findings
    assert len({finding.key for finding in dry if finding.bad} - {first}) == 1
    assert len(faults(hook) - {first}) == 1, "a dry run does not take it either"
