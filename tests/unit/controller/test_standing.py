"""What stands: acts by mode, promises that cannot be kept, operations that can never be admitted."""

import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from fakes.control import Hands, SmallSlurm
from trainmaster.controller import observe, policy, told
from trainmaster.controller.acts import Kind
from trainmaster.controller.journal import Journal
from trainmaster.controller.maintenance import catalogue as catalogues
from trainmaster.controller.maintenance.catalogue import Catalogue, Executor, Operation, Where
from trainmaster.controller.maintenance.limits import Checks, MaintenancePolicy
from trainmaster.controller.maintenance.state import Train, put_train
from trainmaster.controller.memory import Memory, NodeRecord, NodeState
from trainmaster.controller.policy import Drains, Guarantee, Modes, Policy, Returning
from trainmaster.controller.snapshot import Snapshot
from trainmaster.controller.standing import Standing, standing, words
from trainmaster.errors import SlurmUnreachable

RUN = Executor(kind="command", argv=("true",))
ALL_ACT = Modes(default="act")


def slurm(count: int = 16) -> SmallSlurm:
    return SmallSlurm(count, Hands())


def look(door: SmallSlurm, leaves: int = 0) -> Snapshot:
    leaf_of = {name: f"leaf{index // leaves}" for index, name in enumerate(door.all)} if leaves else {}
    return observe.look(door, now=door.clock.at, leaf_of=leaf_of)


def stands(door: SmallSlurm, rules: Policy, memory: Memory | None = None, leaves: int = 0) -> Standing:
    return standing(look(door, leaves), memory or Memory(at=door.clock.at), rules, door.clock.at)


def suspected(door: SmallSlurm, name: str) -> Memory:
    record = NodeRecord(
        name=name, state=NodeState.SUSPECT, since=door.clock.at, why="flap: went down 3 times", cause_at=door.clock.at
    )
    return Memory(at=door.clock.at, nodes={name: record})


def catalogue(**operations: Operation) -> Catalogue:
    made = Catalogue(operations=operations)
    return msgspec.structs.replace(made, order=catalogues.order(made))


def rules(made: Catalogue, **values: object) -> Policy:
    maintenance = MaintenancePolicy(registry=made, checks=Checks(quick=("quick",)), inventory=("inventory",))
    return Policy(modes=ALL_ACT, maintenance=maintenance, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["observe", "propose", "act"])
def test_an_act_stands_under_the_mode_of_its_kind(mode: policy.Mode) -> None:
    door = slurm()
    found = stands(door, Policy(modes=Modes(default="propose", drain=mode)), suspected(door, "n0003"))
    assert {name: [act.kind for act in acts] for name, acts in found.acts.items() if acts} == {mode: [Kind.DRAIN]}
    assert any("drain node:n0003: went down 3 times" in line for line in words(found))


def test_a_healthy_fleet_has_nothing_to_do_and_no_troubles() -> None:
    found = stands(slurm(), Policy(modes=ALL_ACT, guarantee={"batch": Guarantee(nodes=10, failure_buffer=2)}))
    assert (found.troubles, any(found.acts.values())) == ((), False)
    assert [(one.size, one.available, one.room) for one in found.promises] == [(16, 16, 4)]
    assert "  nothing is to be done now" in words(found)


@pytest.mark.parametrize(
    ("group", "promised", "down", "said"),
    [
        ("btach", Guarantee(nodes=1), 0, "no such partition"),
        ("batch", Guarantee(nodes=17), 0, "17 nodes are promised, and there are 16 in all"),
        ("batch", Guarantee(nodes=15), 2, "15 nodes are promised, and 14 are in service"),
        ("batch", Guarantee(nodes=14, failure_buffer=2), 0, "all of 16 nodes: nothing planned is ever admitted"),
        ("batch", Guarantee(nodes=12, failure_buffer=2), 3, "nothing planned is admitted until 1 come back"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_told(group: str, promised: Guarantee, down: int, said: str) -> None:
    door = slurm()
    for name in list(door.all)[:down]:
        door.die(name)
    (trouble,) = stands(door, Policy(guarantee={group: promised})).troubles
    assert trouble.startswith(f"guarantee.{group}: ") and said in trouble


def test_an_operation_whose_hosts_can_never_be_out_is_told() -> None:
    made = catalogue(
        leaf=Operation(executor=RUN, scope="leaf"),
        pod=Operation(executor=RUN, scope="pod"),
        driver=Operation(executor=RUN),
        elsewhere=Operation(executor=RUN, where=Where(gpus=("b200",))),
    )
    found = stands(slurm(), rules(made, drains=Drains(share_max=0.2)), leaves=4).troubles
    assert sum("operation leaf: leaf leaf" in one and "3 may be" in one for one in found) == 4
    assert any("operation pod: no pod" in one for one in found)
    assert any("operation elsewhere: it is for no host" in one for one in found)
    assert not any("driver" in one for one in found)
    # With room for a leaf only what has no place is left to say.
    roomy = stands(slurm(), rules(made, drains=Drains(share_max=0.25)), leaves=4).troubles
    assert [one.split(":")[0] for one in roomy] == ["operation elsewhere", "operation pod"]


def test_a_promise_that_leaves_no_room_for_a_leaf_forbids_its_operation_even_when_nodes_are_down_now() -> None:
    made = catalogue(leaf=Operation(executor=RUN, scope="leaf"))
    door = slurm()
    door.die("n0001")
    wanted = {"batch": Guarantee(nodes=11, failure_buffer=2)}
    found = stands(door, rules(made, drains=Drains(share_max=1.0), guarantee=wanted), leaves=4).troubles
    assert [one for one in found if "can never be taken out: batch would have 12 nodes" in one]


def test_an_operation_on_nodes_that_are_all_promised_can_never_be_admitted() -> None:
    made = catalogue(driver=Operation(executor=RUN))
    found = stands(slurm(), rules(made, guarantee={"batch": Guarantee(nodes=16)})).troubles
    assert any(one.startswith("operation driver: can never be admitted: batch would have 15") for one in found)


def test_a_train_that_stands_still_or_will_be_late_is_told() -> None:
    door = slurm()
    made = catalogue(driver=Operation(executor=RUN, duration_s=3600.0))
    train = Train(name="winter", operations=("driver",), started_at=door.clock.at, cycle_s=7200.0, domain=2)
    memory = Memory(at=door.clock.at)
    memory = replace(memory, maintenance=put_train(memory.maintenance, train))
    policy_now = rules(made)
    (late,) = stands(door, policy_now, memory).troubles
    assert late == "train winter: 16 hosts are left, 2 at once, which takes 8.1 h; 2.0 h of its cycle are left"
    standing_still = msgspec.structs.replace(policy_now, modes=Modes(default="act", book="propose", check="observe"))
    assert any(
        "winter: comes to a stand, since book, check" in one for one in stands(door, standing_still, memory).troubles
    )


def test_modes_that_take_out_and_never_bring_back_are_told() -> None:
    modes = Modes(default="propose", drain="act", keep="act")
    found = stands(slurm(), Policy(modes=modes, returning=Returning(verify=("true",)))).troubles
    assert [one.split(" acts")[0] for one in found] == ["modes: drain", "modes: drain", "modes: keep"]


def test_status_tells_what_stands_and_why_it_cannot_when_slurm_does_not_answer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    door = SmallSlurm(16, Hands(time.time()))
    journal.take_lease("a test", now=door.clock.at, patience_s=60.0)
    journal.save(suspected(door, "n0003"), read={})
    journal.close()
    file = tmp_path / "policy.toml"
    file.write_text("[guarantee.batsh]\nnodes = 9\n")
    shown = told.status(tmp_path / "journal.sqlite", file, door=door, as_json=False)
    assert f"now, by {file}:" in shown and "guarantee.batsh: there is no such partition" in shown
    assert "would, but only proposes to drain node:n0003" in shown
    values = msgspec.json.decode(told.status(tmp_path / "journal.sqlite", file, door=door, as_json=True))
    assert [act["kind"] for act in values["standing"]["acts"]["propose"]] == ["drain"]
    door.refuses = [SlurmUnreachable("slurmctld did not answer")]
    assert "cannot be told: slurmctld did not answer" in told.status(
        tmp_path / "journal.sqlite", file, door=door, as_json=False
    )
    assert "now, by" not in told.status(tmp_path / "journal.sqlite", file, door=None, as_json=False)
