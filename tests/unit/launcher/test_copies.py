"""A rank's copy in memory: what goes in comes out, into the same tensors; what was changed is noticed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.rank import copies

keys = st.text(max_size=3) | st.integers(0, 9)
tensors = st.builds(
    lambda shape, dtype: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float64]),
)
states = st.recursive(
    tensors | st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
).map(lambda state: {"state": state})


def kept(state: Any, path: Path, **extra: Any) -> copies.Kept:
    pieces, values, others = copies.plan(state)
    slot = copies.Slot(path, pinned=False)
    size = slot.write(pieces, values, copies.extra_of(pieces, others, extra))
    return copies.Kept(path, step=7, size=size, crc=slot.crc())


def blank(state: Any) -> Any:
    """The same shape of a state, with nothing of it in it."""
    if isinstance(state, torch.Tensor):
        return torch.zeros_like(state)
    if isinstance(state, dict):
        return {key: blank(value) for key, value in state.items()}
    if isinstance(state, list):
        return [blank(value) for value in state]
    return "?"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(states)
def test_what_goes_in_comes_out_in_place(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    copy = kept(state, tmp_path_factory.mktemp("slot") / "0.0", facts={"seen": 3})
    target = blank(state)
    before = [id(value) for _, value in copies.leaves(target) if isinstance(value, torch.Tensor)]
    assert copy.fits(target)
    copy.fill(target)
    assert same(target, state)
    assert before == [id(value) for _, value in copies.leaves(target) if isinstance(value, torch.Tensor)]
    assert copy.extra == {"facts": {"seen": 3}} and copy.step == 7


@given(st.integers(0, 100_000), st.integers(0, 7))
def test_every_changed_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("slot") / "0.0"
    pieces, values, others = copies.plan({"a": torch.rand(1000), "b": [1, "x"]})
    slot = copies.Slot(path, pinned=False)
    size = slot.write(pieces, values, copies.extra_of(pieces, others, {}))
    crc = slot.crc()
    content = bytearray(path.read_bytes())
    content[place % size] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        copies.Kept(path, step=1, size=size, crc=crc)


def test_another_programs_state_does_not_fit(tmp_path: Path) -> None:
    copy = kept({"a": torch.zeros(3), "n": 1, "empty": {}}, tmp_path / "0.0")
    assert copy.fits({"a": torch.zeros(3)}), "less may be asked for"
    assert copy.fits({"a": torch.zeros(3), "later": {}}), "nothing is asked for"
    assert not copy.fits({"a": torch.zeros(4)})
    assert not copy.fits({"a": torch.zeros(3, dtype=torch.int32)})
    assert not copy.fits({"a": torch.zeros(3), "more": 1})


def test_a_file_is_used_again_while_the_state_keeps_its_shape(tmp_path: Path) -> None:
    slot = copies.Slot(tmp_path / "0.0", pinned=False)
    state: dict[str, Any] = {"a": torch.zeros(1000), "n": 0}
    for number in (1, 2):
        state["a"].fill_(number)
        state["n"] = number
        pieces, values, others = copies.plan(state)
        size = slot.write(pieces, values, copies.extra_of(pieces, others, {}))
        inode = (tmp_path / "0.0").stat().st_ino, (tmp_path / "0.0").stat().st_size
        target = {"a": torch.zeros(1000), "n": 9}
        copies.Kept(tmp_path / "0.0", step=number, size=size, crc=slot.crc()).fill(target)
        assert target["n"] == number and target["a"].tolist() == [number] * 1000
    state["a"] = torch.ones(5000)
    pieces, values, others = copies.plan(state)
    grown = slot.write(pieces, values, copies.extra_of(pieces, others, {}))
    assert grown > size and (tmp_path / "0.0").stat().st_size == grown and inode[1] == size


def test_objects_with_a_state_of_their_own(tmp_path: Path) -> None:
    """As DCP takes them: a module, an optimizer."""
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    copy = kept({"model": model, "optimizer": optimizer}, tmp_path / "0.0")
    other = torch.nn.Linear(3, 2)
    again = torch.optim.AdamW(other.parameters(), lr=0.1)
    other(torch.ones(3)).sum().backward()
    again.step()
    target = {"model": other, "optimizer": again}
    assert copy.fits(target)
    copy.fill(target)
    assert torch.equal(other.weight, model.weight)
    assert again.param_groups[0]["lr"] == 0.5
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
