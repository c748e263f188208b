"""What a rank finds in its environment."""

import json
from dataclasses import asdict, replace

from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.rank.rank_env import CycleFacts, candidate_ports, port_range, rank_environment
from trainmaster.launcher.roles.role_env import RoleFacts


def facts(nodes: int, per_node: int) -> CycleFacts:
    return CycleFacts(
        job_id=7, uid="u", run_dir="/r", attempt=1, cycle=2, cause="node_death", master_addr="10.0.0.1",
        nodes=tuple(f"n{i}" for i in range(nodes)), tasks_per_node=per_node, master_port=12345, restarts_max=9,
    )  # fmt: skip


@given(st.integers(1, 6), st.integers(1, 8))
def test_every_rank_once(nodes: int, per_node: int) -> None:
    shared = facts(nodes, per_node)
    found = [
        rank_environment(shared, node=node, local_rank=local, base={})
        for node in shared.nodes
        for local in range(per_node)
    ]
    assert [int(env["RANK"]) for env in found] == list(range(nodes * per_node))
    for env in found:
        assert int(env["RANK"]) == int(env["GROUP_RANK"]) * per_node + int(env["LOCAL_RANK"])
        assert env["WORLD_SIZE"] == str(nodes * per_node) and env["LOCAL_WORLD_SIZE"] == str(per_node)


def test_what_torchrun_sets_is_set() -> None:
    env = rank_environment(facts(2, 2), node="n1", local_rank=0, base={})
    torchrun = [
        "LOCAL_RANK",
        "RANK",
        "GROUP_RANK",
        "ROLE_RANK",
        "ROLE_NAME",
        "LOCAL_WORLD_SIZE",
        "WORLD_SIZE",
        "GROUP_WORLD_SIZE",
        "ROLE_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_MAX_RESTARTS",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_USE_AGENT_STORE",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "TORCHELASTIC_ERROR_FILE",
        "OMP_NUM_THREADS",
    ]
    assert set(torchrun) <= set(env)
    assert env["TORCHELASTIC_RESTART_COUNT"] == "2" and env["TORCHELASTIC_USE_AGENT_STORE"] == "False"


def test_the_users_choice_stays() -> None:
    env = rank_environment(facts(1, 2), node="n0", local_rank=0, base={"OMP_NUM_THREADS": "4"})
    assert "OMP_NUM_THREADS" not in env


@given(st.integers(1024, 60000), st.integers(61000, 65535))
def test_ports_are_never_ephemeral_when_there_is_a_choice(lowest: int, highest: int) -> None:
    allowed = port_range(lowest, highest)
    assert len(allowed) >= 1000
    if lowest >= 11000 or highest <= 64000:
        assert all(not lowest <= port <= highest for port in (allowed[0], allowed[-1]))


def test_candidates_differ() -> None:
    ports = candidate_ports(range(10000, 32000), count=1000)
    assert len(set(ports)) == 1000


def test_a_gang_role_is_a_world_of_its_own() -> None:
    role = RoleFacts(role="trainer", job_dir="/job", size=4, generation=2)
    env = rank_environment(replace(facts(2, 2), role=role), node="n1", local_rank=1, base={})
    assert (env["RANK"], env["WORLD_SIZE"], env["MASTER_ADDR"]) == ("3", "4", "10.0.0.1")
    assert (env["ROLE_NAME"], env["TRAINMASTER_ROLE_INDEX"], env["TRAINMASTER_GENERATION"]) == ("trainer", "3", "2")
    assert env["TRAINMASTER_REGISTRY"] == "/job/registry.json"


def test_a_replica_that_restarts_alone_has_an_index_but_no_process_group() -> None:
    role = RoleFacts(role="loader", job_dir="/job", size=6, generation=0, index=4, slot=1, slots=3)
    env = rank_environment(replace(facts(1, 1), role=role), node="n0", local_rank=0, base={})
    assert (env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"], env["LOCAL_WORLD_SIZE"]) == ("4", "6", "1", "3")
    assert "MASTER_ADDR" not in env and "MASTER_PORT" not in env
    assert env["TORCHELASTIC_ERROR_FILE"] == "/r/attempt1.2/rank4.error.json"


def test_facts_survive_the_wire() -> None:
    role = RoleFacts(role="loader", job_dir="/job", size=6, generation=0, index=4)
    for shared in (facts(2, 1), replace(facts(2, 1), role=role)):
        assert CycleFacts.from_message(json.loads(json.dumps(asdict(shared)))) == shared
