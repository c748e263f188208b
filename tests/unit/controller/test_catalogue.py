"""The registry of operations: the example is whole, mistakes are named, and every host goes through one order."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.cli import main
from trainmaster.controller.maintenance import catalogue as catalogues
from trainmaster.controller.maintenance import domains, versions, visit
from trainmaster.controller.maintenance.catalogue import Where
from trainmaster.errors import ConfigError, UsageError
from trainmaster.slurm.values import Node

EXAMPLE = catalogues.load(catalogues.EXAMPLE)
ORDER = catalogues.order(EXAMPLE)
HOST = Node(name="n1", gres="gpu:h100:8(S:0-1)", partitions=("batch",))


def faults(tmp_path: Path, text: str) -> str:
    file = tmp_path / "ops.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        catalogues.load(file)
    return str(caught.value)


def test_the_example_has_what_a_fleet_has() -> None:
    assert len(EXAMPLE.operations) >= 30
    assert len(EXAMPLE.components) >= 50
    upgraded = {component for one in EXAMPLE.operations.values() for component in one.upgrades}
    assert upgraded == set(EXAMPLE.components)
    assert {one.scope for one in EXAMPLE.operations.values()} == {"node", "leaf", "pod", "switch"}
    assert {one.executor.kind for one in EXAMPLE.operations.values()} == {"command", "ansible", "reboot", "srun"}


def test_one_reboot_serves_all_that_needs_it_and_comes_before_what_waits_for_it() -> None:
    due = visit.due(EXAMPLE, ORDER, HOST, set(ORDER), seen={})
    assert due.count("reboot") == 1
    at = due.index("reboot")
    for name in due:
        if EXAMPLE.operations[name].needs_reboot:
            assert due.index(name) < at
    assert due.index("lustre") > at and due.index("deep-check") > at
    assert due.index("bmc") < due.index("bios") and due.index("cuda") > due.index("nvidia-driver")
    # BlueField is not on this host, and a host that needs nothing with a reboot is not rebooted.
    assert "bluefield" not in due
    assert "reboot" not in visit.due(EXAMPLE, ORDER, HOST, {"cuda", "reboot"}, seen={})


def test_what_is_seen_to_be_there_is_not_done_again() -> None:
    wanted = visit.required(EXAMPLE, HOST, ORDER)
    due = visit.due(EXAMPLE, ORDER, HOST, set(ORDER), seen=wanted, done=("pod-power-test", "deep-check"))
    assert set(due) == {"scratch-trim", "node-facts"}
    assert visit.lacking(wanted, {**wanted, "bios": "1.0"}) == {"bios": "1.0"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[operations.a]\nupgrades = { cuda = "1" }', "operations.a.executor: has to be a table"),
        ('[operations.a]\nexecutor = { kind = "magic" }', "operations.a.executor.kind: invalid enum value 'magic'"),
        ('[operations.a]\nexecutor = { kind = "command" }', "operations.a.executor: kind 'command' needs argv"),
        (
            '[operations.a]\nexecutor = { kind = "ansible", playbook = "a", argv = ["x"] }',
            "argv means nothing to kind 'ansible'",
        ),
        (
            '[components.cuda]\n[operations.a]\nupgrades = { cuba = "1" }\nexecutor = { kind = "reboot" }',
            "operations.a.upgrades: there is no component 'cuba'; 'cuda' may be meant",
        ),
        ('[operations.a]\nexecutor = { kind = "srun", script = "x" }', "Slurm starts nothing on a drained node"),
        (
            '[operations.a]\nneeds_reboot = true\nexecutor = { kind = "command", argv = ["x"] }',
            "operations.a.needs_reboot: no operation reboots",
        ),
        ('[operations.a]\nexecutor = { kind = "command", argv = ["{host}"] }', "{host} is not filled in by anything"),
        (
            '[operations.a]\nafter = ["b"]\nexecutor = { kind = "reboot" }\n'
            '[operations.b]\nafter = ["a"]\nexecutor = { kind = "reboot" }',
            "none of them could be first",
        ),
        ('[operations.a]\nafter = ["c"]\nexecutor = { kind = "reboot" }', "there is no other operation 'c'"),
        (
            '[operations.a]\nscope = "leaf"\nexecutor = { kind = "reboot" }',
            "operations.a.scope: reboot works on hosts",
        ),
        (
            '[components.x]\n[operations.a]\nupgrades = { x = "1" }\nexecutor = { kind = "reboot" }\n'
            '[operations.b]\nupgrades = { x = "2" }\nexecutor = { kind = "reboot" }',
            "want x in 2 versions (1, 2) on the same hosts",
        ),
        (
            '[components.x]\n[components.y]\n[operations.a]\nupgrades = { x = "13.1", y = "9" }\n'
            'executor = { kind = "reboot" }\n'
            '[requires.r]\ncomponent = "x"\nsince = "13"\nneeds = "y"\nat_least = "10"',
            "requires.r: the operations lead to x 13.1, y 9, but x >= 13 needs y >= 10",
        ),
        ('[requires.r]\ncomponent = "x"', "requires.r: needs missing"),
        ('[operations.a]\nduration = 5\nexecutor = { kind = "reboot" }', "'duration_s' may be meant"),
        ("operations = 3", "operations"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in faults(tmp_path, text)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = '[operations.a]\nafter = ["c"]\nupgrades = { y = "1" }\nexecutor = { kind = "command" }'
    said = faults(tmp_path, text)
    assert "after" in said and "upgrades" in said and "needs argv" in said


def test_hosts_are_chosen_by_all_that_is_said() -> None:
    assert visit.applies(Where(partitions=("batch",), gpus=("h100",)), HOST)
    assert not visit.applies(Where(partitions=("other",), gpus=("h100",)), HOST)
    assert visit.applies(Where(nodes="n[1-3]"), HOST)
    assert not visit.applies(Where(features=("weka",)), HOST)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_versions_compare_as_their_numbers_do(one: list[int], other: list[int]) -> None:
    words = [".".join(map(str, numbers)) for numbers in (one, other)]
    assert (versions.key(words[0]) < versions.key(words[1])) is (one < other)


def test_the_best_domain_is_the_published_one() -> None:
    fleet = domains.Fleet(hosts=2048, largest_job=1984, cycle_h=672.0, visit_h=2.0, interruption_h=0.15)
    found = domains.size("auto", fleet)
    assert found.hosts == 30
    assert sum(domains.loss_share(fleet, 30)) == pytest.approx(0.029, abs=0.001)
    quiet = {**_values(fleet), "interruption_h": 0.05, "failures_per_1000_node_days": 0.0}
    assert domains.size("auto", domains.Fleet(**quiet)).hosts == 17
    assert "30.1 hosts lose least" in found.why[0]


def _values(fleet: domains.Fleet) -> dict[str, float]:
    return {name: getattr(fleet, name) for name in ("hosts", "largest_job", "cycle_h", "visit_h", "interruption_h")}


@given(st.integers(2, 5000), st.floats(0.01, 1.0), st.floats(0.01, 2.0), st.floats(0.5, 10.0))
def test_no_neighbour_of_the_best_domain_is_better(hosts: int, share: float, cost: float, visit_h: float) -> None:
    fleet = domains.Fleet(
        hosts=hosts, largest_job=max(1, int(hosts * share)), cycle_h=672.0, visit_h=visit_h, interruption_h=cost
    )
    ideal = domains.best(fleet)

    def lost(size: float) -> float:
        return size / hosts + fleet.largest_job * cost / (size * fleet.cycle_h)

    assert lost(ideal) <= lost(ideal * 1.1) and lost(ideal) <= lost(ideal / 1.1)
    assert domains.size("auto", fleet).hosts >= domains.least(fleet)


def test_a_small_fleet_takes_out_what_restarts_after_failures_can_serve() -> None:
    """`auto` took 7 of 512 hosts, and so the giant was interrupted 51 times a cycle: 5.3 times the lower bound."""
    values = {"hosts": 512, "largest_job": 430, "cycle_h": 672.0, "visit_h": 2.0, "interruption_h": 0.15}
    fleet = domains.Fleet(**values, failures_per_1000_node_days=3.79)
    assert domains.size("auto", fleet).hosts == domains.by_restarts(fleet) == 13 > domains.best(fleet)
    assert any("3.79 failures per 1000" in line for line in domains.size("auto", fleet).why)
    # Where too little fails for that, it is no reason to take out a tenth of the fleet.
    assert domains.size("auto", domains.Fleet(**values, failures_per_1000_node_days=0.5)).hosts == 7


def test_a_domain_is_a_number_a_share_or_units() -> None:
    fleet = domains.Fleet(hosts=200, largest_job=100, cycle_h=672.0, visit_h=2.0, interruption_h=0.1)
    assert domains.size("7", fleet).hosts == 7
    assert domains.size("1.5%", fleet).hosts == 3
    leaf = domains.size("leaf", fleet, {"s1": ("a", "b"), "s2": ("c",)})
    assert (leaf.hosts, leaf.unit) == (2, "leaf")
    with pytest.raises(UsageError, match="no pod is known"):
        domains.size("pod", fleet)
    with pytest.raises(UsageError, match="'lots'"):
        domains.size("lots", fleet)


def test_the_commands_tell_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["controller", "train", "check"]) == 0
    assert "46 operations on 63 components" in capsys.readouterr().out
    assert main(["controller", "train", "domain", "--hosts", "2048", "--largest-job", "1984"]) == 0
    assert capsys.readouterr().out.startswith("30 hosts at once")
