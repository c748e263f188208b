"""The state between passes: damaged, foreign, locked, unwritable."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.health import state
from trainmaster.health.state import State, Store

FULL = State("boot", {"node.kmsg": {"last": 7}}, {"gpu.xid": {}}, {"gpu.temp|g": [1.0, 2.0]}, 3)


def test_what_was_written_is_read() -> None:
    assert state.decode(state.encode(FULL), "boot") == (FULL, "")


def test_another_boot_begins_anew() -> None:
    fresh, why = state.decode(state.encode(FULL), "other")
    assert fresh == State(boot_id="other") and "booted" in why


@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode(errors="replace"))))
def test_no_garbage_is_believed_or_raised(text: str) -> None:
    fresh, _ = state.decode(text, "boot")
    assert fresh == State(boot_id="boot")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_json_of_another_shape_is_believed(value: object) -> None:
    assert state.decode(json.dumps(value), "boot")[0] == State(boot_id="boot")
    damaged = {"version": 1, **FULL._asdict(), "strikes": value}
    found, _ = state.decode(json.dumps(damaged), "boot")
    assert found.boot_id == "boot" and all(isinstance(times, list) for times in found.strikes.values())


def test_a_store_keeps_a_state(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "health"))
    assert store.open("boot") == (State(boot_id="boot"), "there was no state yet")
    store.save(FULL)
    store.close()
    again = Store(str(tmp_path / "health"))
    assert again.open("boot") == (FULL, "")
    again.close()
    assert not again.trouble and not list(tmp_path.rglob("*.new"))


def test_a_pass_beside_another_reads_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "LOCK_S", 0.05)
    (tmp_path / state.FILE).write_text(state.encode(FULL))
    holder = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    store = Store(str(tmp_path))
    assert store.open("boot")[0] == FULL
    store.save(State(boot_id="boot"))
    store.close()
    os.close(holder)
    assert "another pass" in store.trouble
    assert state.decode((tmp_path / state.FILE).read_text(), "boot")[0] == FULL


def test_a_folder_that_cannot_be_made_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(str(tmp_path / "file" / "health"))
    assert store.open("boot")[0] == State(boot_id="boot")
    store.save(FULL)
    store.close()
    assert "cannot be written" in store.trouble
