"""Roles from a TOML file."""

import tomllib

import pytest

from trainmaster.errors import SpecError
from trainmaster.launcher.roles.roles_file import decode_roles


def test_common_values_hold_where_a_role_says_nothing_else() -> None:
    name, roles = decode_roles(
        tomllib.loads(
            """
            name = "recommender"
            time = "2h"
            mem = "4G"
            setup = ["module load cuda"]

            [roles.embedding]
            program = ["python", "server.py", "--shards", 8]
            mem = "64G"
            service = true
            restart = "rollback"
            rolls_back = ["trainer"]

            [roles.trainer]
            program = "python train.py"
            after = ["embedding"]
            gpus_per_node = 4
            """
        )
    )
    assert name == "recommender"
    embedding, trainer = roles["embedding"], roles["trainer"]
    assert embedding.target == ["python", "server.py", "--shards", "8"]
    assert (embedding.service, embedding.restart, embedding.rolls_back) == (True, "rollback", ("trainer",))
    assert (embedding.spec.mem, trainer.spec.mem, trainer.spec.time) == ("64G", "4G", "2h")
    assert embedding.spec.setup == ("module load cuda",) and trainer.spec.setup == ()
    assert (trainer.target, trainer.after, trainer.spec.gpus_per_node) == ("python train.py", ("embedding",), 4)


def test_every_fault_of_every_table_is_named() -> None:
    with pytest.raises(SpecError) as raised:
        decode_roles(
            {
                "roles": {
                    "a": {"program": [], "after": "b", "node": 2},
                    "b": {"program": "true", "nodes": 0, "service": "yes"},
                    "c": 3,
                }
            }
        )
    assert raised.value.faults == (
        "roles.a: program must be text or a list of words, it is []",
        "roles.a: after must be a list of roles, it is 'b'",
        "roles.a: there is no key 'node'; 'nodes' may be meant",
        "roles.b: service must be true or false, it is 'yes'",
        "roles.b: nodes must be at least 1, it is 0",
        "roles.c must be a table, it is 3",
    )


def test_roles_that_are_no_tables_are_refused() -> None:
    with pytest.raises(SpecError, match="roles must be tables"):
        decode_roles({"roles": ["a"]})


def test_an_unknown_key_above_the_tables_is_named_once() -> None:
    roles = {"a": {"program": "true"}, "b": {"program": "true", "nodez": 1}}
    with pytest.raises(SpecError) as raised:
        decode_roles({"tme": "2h", "roles": roles})
    assert raised.value.faults == (
        "there is no key 'tme'; 'time' may be meant",
        "roles.b: there is no key 'nodez'; 'nodes' may be meant",
    )
