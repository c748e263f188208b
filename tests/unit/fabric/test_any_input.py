"""Nothing that a person, a tool or a damaged file can say ends in anything but its meaning or an error in words."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainmaster.errors import FabricError, UsageError
from trainmaster.fabric.cabling import inspect
from trainmaster.fabric.counters import growth, read_counters
from trainmaster.fabric.discover import read
from trainmaster.fabric.generate import DESIGNS, generate, parse_shape
from trainmaster.fabric.link_health import FORMAT, BadLink, BadNode, Evidence, LinkHealth, decode, encode, stale
from trainmaster.fabric.merge import merge
from trainmaster.fabric.mesh import axes_of, between_nodes, read_mesh
from trainmaster.fabric.netlist import netlist
from trainmaster.fabric.publish_cli import _as_text, _from_text
from trainmaster.fabric.sources import lldp, ufm

BASE = generate(parse_shape("rail:2x2,rails=2"))
# Python refuses to make an int of more than 4,300 digits, with a ValueError.
TOO_LONG = "9" * 5000
FABRIC = replace(BASE, switches=tuple(replace(one, lid=number + 1) for number, one in enumerate(BASE.switches)))


# --- counters ---------------------------------------------------------------------------------------------------------

names = st.sampled_from(["SymbolErrorCounter", "LinkDownedCounter", "PortRcvErrors", "PortXmitWait"])
values = st.dictionaries(names, st.integers(0, 2**64 - 1), min_size=1, max_size=4)
ports = st.tuples(st.sampled_from([one.guid for one in FABRIC.switches]), st.integers(1, 64))
looks = st.dictionaries(ports, values, min_size=1, max_size=5)


def as_ibqueryerrors(found: dict[tuple[str, int], dict[str, int]]) -> str:
    lines = ['Errors for 0x2000000000000000 "su001-rail0"']
    for (guid, port), counted in found.items():
        items = " ".join(f"[{name} == {value}]" for name, value in counted.items())
        lines.append(f"   GUID {guid} port {port}: {items}")
    return "\n".join([*lines, "", "## Summary: 6 nodes checked, 1 bad nodes found", ""])


def as_perfquery(found: dict[tuple[str, int], dict[str, int]]) -> str:
    lid = {one.guid: one.lid for one in FABRIC.switches}
    lines = []
    for (guid, port), counted in found.items():
        lines += [
            f"# Port counters: Lid {lid[guid]} port {port} (CapMask: 0x5300)",
            f"PortSelect:......................{port}",
        ]
        lines += [f"{name}:{'.' * (33 - len(name))}{value}" for name, value in counted.items()]
    return "\n".join([*lines, ""])


@given(looks)
def test_counters_are_read_as_both_tools_write_them(found: dict[tuple[str, int], dict[str, int]]) -> None:
    assert read_counters(as_ibqueryerrors(found), FABRIC) == found
    by_lid = read_counters(as_perfquery(found), FABRIC)
    assert {port: {k: v for k, v in some.items() if k != "PortSelect"} for port, some in by_lid.items()} == found


@settings(deadline=None)
@given(looks, st.sampled_from([as_ibqueryerrors, as_perfquery]), st.data())
def test_no_damage_to_counters_ends_in_anything_but_counters_or_words(found: Any, writes: Any, data: Any) -> None:
    text = writes(found)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        more = data.draw(
            st.sampled_from(["", "\n", "[", "]", ":", "-1", "x", "\x00", "٣", " == ", TOO_LONG]) | st.text(max_size=5)
        )
        text = text[:at] + more + text[min(len(text), at + data.draw(st.integers(0, 20))) :]
    try:
        seen = read_counters(text, FABRIC)
    except FabricError:
        return
    assert all(0 <= value < 10**20 and 0 <= port < 1000 for (_, port), some in seen.items() for value in some.values())
    assert all(value >= 0 for some in growth(found, seen).values() for value in some.values())


@pytest.mark.parametrize(
    "text",
    [
        f"   GUID 0x1 port {TOO_LONG}: [SymbolErrorCounter == 3]\n",
        f"   GUID 0x1 port 1: [SymbolErrorCounter == {TOO_LONG}]\n## Summary: 1 nodes checked\n",
        f"# Port counters: Lid {TOO_LONG} port 1\nSymbolErrorCounter:...3\n",
        f"# Port counters: Lid 1 port 1\nSymbolErrorCounter:...{TOO_LONG}\n",
    ],
)
def test_a_counter_of_five_thousand_digits_ended_the_reader(text: str) -> None:
    try:
        found = read_counters(text, FABRIC)
    except FabricError:
        return
    assert not any(found.values())


@pytest.mark.parametrize("kind", ["ibnetdiscover", "ibnetdiscover-p"])
def test_a_port_or_address_of_five_thousand_digits_ended_the_reader(kind: str) -> None:
    normal = netlist(BASE)
    ported = (
        "SW     1  1 0x0000000000000010 4x HDR - CA     2  1 0x0000000000000020 ( 'leaf' - 'n1 mlx5_0' )\n"
        "SW     1  2 0x0000000000000010 4x HDR - CA     3  1 0x0000000000000030 ( 'leaf' - 'n2 mlx5_0' )\n"
    )
    text, marks = (
        (normal, ["[1]", "lid 0 4x", "Ca\t1 "]) if kind == "ibnetdiscover" else (ported, ["  1 0x", " 4x", " 2  1"])
    )
    for mark in marks:
        assert mark in text
        damaged = text.replace(mark, "".join(TOO_LONG if one.isdigit() else one for one in mark), 1)
        assert len(read(damaged, source=kind).switches) >= 1


@given(looks, st.floats(0, 2e9))
def test_the_kept_counters_are_read_back(tmp_path_factory: Any, found: Any, at_s: float) -> None:
    path = tmp_path_factory.mktemp("kept") / "counters"
    path.write_text(_as_text(found, at_s))
    assert _from_text(path) == (found, at_s)


# --- the published file -----------------------------------------------------------------------------------------------

words = st.text(max_size=8)
times = st.floats(0, 4e9)
scores = st.floats(0, 1)
evidence = st.builds(Evidence, code=words, subject=words, detail=words, score=scores, seen_at_s=times)
pairs = st.tuples(words, words)
links = st.lists(pairs, max_size=3).flatmap(
    lambda said: st.builds(
        BadLink, ports=pairs, ends=pairs, host=words, device=words, score=scores, seen_at_s=times,
        causes=st.just(tuple(cause for cause, _ in said)), codes=st.just(tuple(code for _, code in said)),
    )
)  # fmt: skip
bad_nodes = st.builds(BadNode, score=scores, evidence=st.lists(evidence, max_size=2).map(tuple))
files = st.builds(
    LinkHealth, taken_at_s=times, good_for_s=times, source=words, known=words,
    nodes=st.dictionaries(words, bad_nodes, max_size=3),
    links=st.lists(links, max_size=2).map(tuple),
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(10**400)
anything = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=6), below, max_size=3),
    max_leaves=8,
)


@given(files)
def test_the_published_file_is_read_back(health: LinkHealth) -> None:
    assert decode(encode(health)) == health


def spoilt(data: Any, value: Any) -> Any:
    """A value with something else at one place inside it, or without it."""
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 5)) == 0:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: spoilt(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], spoilt(data, value[at]), *value[at + 1 :]]
    return data.draw(anything)


@settings(deadline=None)
@given(files, st.data())
def test_no_damage_to_the_published_file_gives_anything_but_scores_or_words(health: LinkHealth, data: Any) -> None:
    raw = spoilt(data, json.loads(encode(health)))
    try:
        found = decode(json.dumps(raw))
    except FabricError:
        return
    assert all(0 <= score <= 1 for score in found.scores().values())
    assert stale(found, now_s=found.taken_at_s + abs(found.good_for_s) + 1e13)


@pytest.mark.parametrize("what", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, '"nan"'])
@pytest.mark.parametrize("field", ["taken_at_s", "good_for_s"])
def test_a_file_whose_age_is_no_number_was_good_for_ever(field: str, what: str) -> None:
    text = json.dumps(
        {"format": FORMAT, "taken_at_s": 0.5, "good_for_s": 0.5, "source": "", "known": "", "nodes": {}, "links": []}
    )
    assert decode(text).taken_at_s == 0.5
    with pytest.raises(FabricError):
        decode(text.replace(f'"{field}": 0.5', f'"{field}": {what}'))


# --- shapes and meshes ------------------------------------------------------------------------------------------------

sizes = st.integers(1, 6)
options = st.fixed_dictionaries({}, optional={"rails": sizes, "over": sizes, "spines": sizes})


@settings(deadline=None)
@given(st.sampled_from(sorted(DESIGNS)), st.data(), options)
def test_a_shape_that_can_be_read_can_be_built_and_merged(
    design: str, data: Any, given_options: dict[str, int]
) -> None:
    numbers = [data.draw(sizes) for _ in range(DESIGNS[design])]
    text = f"{design}:{'x'.join(map(str, numbers))}" + "".join(
        f",{key}={value}" for key, value in given_options.items()
    )
    try:
        shape = parse_shape(text)
    except UsageError:
        assert design == "planes"
        return
    fabric = generate(shape)
    nodes = numbers[0] * numbers[1] * (numbers[2] if design in ("pods", "planes") else 1)
    assert len(fabric.hcas) == shape.nodes_in_all * shape.rails
    assert shape.nodes_in_all == (nodes if design != "planes" else numbers[1] * numbers[2])
    merged = merge(fabric)
    assert len(merged.tree.nodes) == shape.nodes_in_all
    assert "cut" not in {one.code for one in inspect(merged)}


shape_parts = st.lists(
    st.sampled_from([*DESIGNS, ":", "x", ",", "=", "4", "32", "0", "-1", "rails", " ", "٣", "²", "1e3", TOO_LONG])
    | st.text(max_size=3),
    max_size=9,
).map("".join)  # fmt: skip


@given(shape_parts)
@example(f"rail:4x{TOO_LONG}")
@example(f"rail:4x4,rails={TOO_LONG}")
@example("rail:4x4,rails=2,rails=3")
def test_no_shape_ends_in_anything_but_a_fabric_of_bounded_size_or_words(text: str) -> None:
    try:
        shape = parse_shape(text)
    except UsageError:
        return
    assert 0 < shape.nodes_in_all * shape.rails <= 1_000_000


def test_a_shape_that_memory_could_not_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="memory"):
        parse_shape("pods:999x999x999")


axes = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 512), min_size=1, max_size=6)


@given(axes)
def test_a_mesh_is_read_as_it_is_written(mesh: dict[str, int]) -> None:
    assert read_mesh(" , ".join(f"{name} = {size}" for name, size in mesh.items())) == mesh


@given(
    st.lists(
        st.sampled_from(["tp", "dp", "=", ",", "8", "0", "-8", "²", " ", "1e3", "=4,"]) | st.text(max_size=3),
        max_size=9,
    ).map("".join),
    st.integers(-2, 8),
)
def test_no_mesh_ends_in_anything_but_axes_or_words(text: str, ranks_per_node: int) -> None:
    try:
        mesh = read_mesh(text)
        left = between_nodes(axes_of(mesh), ranks_per_node)
    except ValueError:
        return
    assert ranks_per_node >= 1 and all(size >= 1 for size in mesh.values()) and all(axis.size > 1 for axis in left)


@pytest.mark.parametrize("text", ["tp=0,dp=4", "tp=-8,dp=4", "dp=2,dp=4", "=4", "dp", "dp=4=4", "", f"dp={TOO_LONG}"])
def test_an_axis_of_no_ranks_or_two_of_one_name_were_left_out_without_a_word(text: str) -> None:
    with pytest.raises(ValueError):
        read_mesh(text)


# --- JSON of UFM and of lldpd -----------------------------------------------------------------------------------------


def ufm_link(number: int) -> dict[str, Any]:
    return {
        "source_guid": f"0x{number + 32:x}", "source_port": "1", "source_port_node_description": f"n{number} mlx5_0",
        "source_port_dname": "HCA-1/1", "destination_guid": "0x10", "destination_port": str(number + 1),
        "destination_port_node_description": f"leaf:{number + 1}", "destination_port_dname": str(number + 1),
        "width": "4x", "speed": "HDR",
    }  # fmt: skip


UFM_ANSWER = {"links": [ufm_link(number) for number in range(3)], "systems": [{"guid": "0x10", "type": "switch"}]}
SHORT = {"chassis": {"leaf": {"id": {"type": "mac", "value": "aa"}}}, "port": {"id": {"value": "swp1"}}}
LONG = {
    "name": "eth0",
    "chassis": [{"id": [{"value": "aa"}], "name": [{"value": "leaf"}]}],
    "port": [{"id": [{"value": "2"}]}],
}
LLDP_ANSWER = {
    "n1": {"lldp": {"interface": [{"eth0": SHORT}]}},
    "n2": {"lldp": [{"interface": [LONG]}]},
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([(ufm, UFM_ANSWER), (lldp, LLDP_ANSWER)]), st.data())
def test_no_damage_to_json_of_the_right_form_breaks_its_reader_or_the_merge(which: Any, data: Any) -> None:
    source, raw = which
    for _ in range(data.draw(st.integers(1, 3))):
        raw = spoilt(data, raw)
    try:
        fabric = source.read(json.dumps(raw))
    except FabricError:
        return
    inspect(merge(fabric))


def test_the_undamaged_answers_are_fabrics() -> None:
    assert [node.name for node in ufm.read(json.dumps(UFM_ANSWER)).nodes()] == ["n0", "n1", "n2"]
    assert [node.name for node in lldp.read(json.dumps(LLDP_ANSWER)).nodes()] == ["n1", "n2"]
