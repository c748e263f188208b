"""When the full set is looked at: hourly, each node at its own moment, and not beside a job that it would hold up."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.health import node, policy, registry, schedule
from trainmaster.health.check import Check
from trainmaster.health.finding import Action, fail
from trainmaster.health.profile import Profile
from trainmaster.lab import fakeroot

HOSTS = st.text("abcgpu-0123456789", min_size=1, max_size=20)
TIMES = st.floats(0, 4e9)


@given(HOSTS, TIMES, st.integers(20, 600))
def test_once_in_every_hour_whatever_the_interval(host: str, began_s: float, interval_s: int) -> None:
    looked, turns = began_s, []
    for number in range(1, 3 * 3600 // interval_s):
        now_s = began_s + number * interval_s
        if schedule.due(host, now_s, looked):
            looked = now_s
            turns.append(now_s)
    assert 2 <= len(turns) <= 3
    assert all(abs(later - sooner - 3600) <= interval_s for sooner, later in pairwise(turns))


def test_a_fleet_is_spread_over_the_hour() -> None:
    minutes: dict[int, int] = {}
    for number in range(6000):
        minute = int(schedule.moment_s(f"gpu{number:04d}") // 60)
        minutes[minute] = minutes.get(minute, 0) + 1
    # 100 a minute on average; by chance alone no minute of sixty has 150 of them.
    assert sorted(minutes) == list(range(60)) and max(minutes.values()) < 150 and min(minutes.values()) > 60


@given(HOSTS, TIMES)
def test_the_first_pass_of_a_boot_and_a_clock_set_back_look(host: str, now_s: float) -> None:
    assert schedule.due(host, now_s, None) and schedule.due(host, now_s, now_s + 1)
    assert not schedule.due(host, now_s, now_s)


def test_what_holds_a_job_up_waits_for_its_end() -> None:
    busy = schedule.turn("n01", 1e9, {}, idle=False, standing=False)
    assert (busy.full, busy.idle) == (True, False) and set(busy.looked) == {"full"}
    later = schedule.turn("n01", 1e9 + 60, busy.looked, idle=True, standing=False)
    assert (later.full, later.idle) == (False, True)
    after = schedule.turn("n01", 1e9 + 120, later.looked, idle=True, standing=False)
    assert (after.full, after.idle) == (False, False)
    # A drain that only the full set can see gone is looked at again in each pass.
    held = schedule.turn("n01", 1e9 + 180, after.looked, idle=True, standing=True)
    assert (held.full, held.idle) == (True, True) and held.looked == after.looked


@given(st.dictionaries(st.text(), st.none() | st.text() | st.floats() | st.lists(st.integers())))
def test_a_damaged_memory_looks(looked: dict[str, Any]) -> None:
    assert schedule.turn("n01", 1e9, looked | {"full": "x"}, idle=False, standing=False).full


def test_fast_checks_are_always_chosen() -> None:
    never = schedule.Turn(False, False, {})
    ids = {check.id for check in schedule.chosen(registry.chosen((), (), "full"), never)}
    assert ids == {check.id for check in registry.chosen()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fakeroot.create(tmp_path, node_name="n01", gpus=2)
    return tmp_path


def looked_at(root: Path, name: str) -> bool:
    return name in node.run(node.Options(root=str(root), hourly=True)).readings


def test_a_node_looks_at_its_infoROM_when_no_job_runs(root: Path) -> None:
    stat = "900 (slurmstepd) S 1 " + "0 " * 17 + "4242 0 0\n"
    (root / "proc/900").mkdir(parents=True)
    (root / "proc/900/stat").write_text(stat)
    (root / "proc/900/comm").write_text("slurmstepd\n")
    assert not looked_at(root, "gpu.inforom.query")
    for name in ("stat", "comm"):
        (root / "proc/900" / name).unlink()
    assert not looked_at(root, "gpu.inforom.query"), "the last pass has seen a job, this one that it is gone"
    assert looked_at(root, "gpu.inforom.query")
    assert not looked_at(root, "gpu.inforom.query"), "not again within the hour"
    ledger = root / "var/lib/trainmaster/health/ledger.json"
    cause = ["gpu.inforom", "0000:00:07.0", "drain", "b"]
    ledger.write_text(json.dumps({"causes": [cause], "reason": "x", "good_passes": 0, "note": ""}))
    assert looked_at(root, "gpu.inforom.query"), "it is held against the node, and may be over"


def test_a_pass_of_fewer_checks_forgets_no_strikes() -> None:
    # `trainmaster health check --only fs` by hand used to clear what three passes had counted.
    found = fail(Action.DRAIN, "hot", subject="0")._replace(check="gpu.temp")
    check = Check("gpu.temp", "", (), lambda context: [], strikes=3)
    first = policy.decide([found], checks={check.id: check}, strikes={}, profile=Profile({}), now_s=1.0)
    other = policy.decide([], checks={}, strikes=first.strikes, profile=Profile({}), now_s=2.0)
    assert other.strikes == first.strikes == {found.key: [1.0]}
    assert (
        policy.decide([], checks={check.id: check}, strikes=other.strikes, profile=Profile({}), now_s=3.0).strikes == {}
    )
