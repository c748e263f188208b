"""Every source's text becomes the fabric that it describes; broken texts become errors that say what to do."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.errors import FabricError
from trainmaster.fabric.cabling import inspect
from trainmaster.fabric.describe import read_description, read_guids
from trainmaster.fabric.discover import SOURCES, discover, read
from trainmaster.fabric.generate import generate, parse_shape, with_manager
from trainmaster.fabric.merge import collapse, merge
from trainmaster.fabric.model import Kind
from trainmaster.fabric.netlist import netlist
from trainmaster.fabric.sources import saved

# As a Quantum switch with SHARP, a host with two adapters and one that rdma-ndd has not named shows itself.
QUANTUM = """#
# Topology file: generated on Tue Jun  3 10:00:00 2025
#
# Initiated from node b8599f0300fc6de4 port b8599f0300fc6de4

vendid=0x2c9
devid=0xd2f0
sysimgguid=0xb8599f0300fc6de4
switchguid=0xb8599f0300fc6de4(b8599f0300fc6de4)
Switch\t41 "S-b8599f0300fc6de4"\t\t# "MF0;sw-leaf1:MQM8700/U1" enhanced port 0 lid 13 lmc 0
[3]\t"S-0002c903007b78b0"[1]\t\t# "MF0;sw-spine1:MQM8700/U1" lid 19 4xHDR
[23]\t"H-ec0d9a03007d7d0a"[1](ec0d9a03007d7d0a) \t\t# "gpu01 mlx5_0" lid 9 4xHDR
[24]\t"H-ec0d9a03007d7d0b"[1](ec0d9a03007d7d0b) \t\t# "gpu01 mlx5_1" lid 28 2xHDR
[25]\t"H-ec0d9a03007d7e0b"[1](ec0d9a03007d7e0b) \t\t# "MT4123 ConnectX6   Mellanox Technologies" lid 29 4xHDR
[26]\t"H-ec0d9a03007d7f0b"[1](ec0d9a03007d7f0b) \t\t# "ddn-exa1 HCA-1" lid 30 4xHDR
[41]\t"H-b8599f0300fc6dec"[1](b8599f0300fc6dec) \t\t# "Mellanox Technologies Aggregation Node" lid 14 4xHDR

vendid=0x2c9
devid=0x101b
sysimgguid=0xec0d9a03007d7d0a
caguid=0xec0d9a03007d7d0a
Ca\t1 "H-ec0d9a03007d7d0a"\t\t# "gpu01 mlx5_0"
[1](ec0d9a03007d7d0a) \t"S-b8599f0300fc6de4"[23]\t\t# lid 9 lmc 0 "MF0;sw-leaf1:MQM8700/U1" lid 13 4xHDR
"""


def test_ibnetdiscover_tells_hosts_from_what_is_none():
    fabric = read(QUANTUM)
    assert fabric.source == "ibnetdiscover"
    assert fabric.taken_at == "Tue Jun  3 10:00:00 2025"
    assert [node.name for node in fabric.nodes()] == ["gpu01"]
    kinds = {hca.guid[-4:]: hca.kind for hca in fabric.hcas}
    assert kinds["6dec"] is Kind.AGGREGATION
    assert kinds["7f0b"] is Kind.SERVICE
    assert sorted(fabric.links.lanes.tolist()) == [2, 4, 4, 4, 4, 4]
    assert any("cut off" in remark for remark in fabric.remarks)  # the spine's own paragraph is not there


def test_an_adapter_without_a_name_is_found_by_its_guid():
    text = "gpu02 mlx5_0 ec0d:9a03:007d:7e0b\n"
    named = discover([QUANTUM], guids=read_guids(text))
    assert [node.name for node in named.nodes()] == ["gpu01", "gpu02"]
    assert "nameless" in {one.code for one in inspect(merge(read(QUANTUM)))}
    assert "nameless" not in {one.code for one in inspect(merge(named))}
    assert read_guids('0xec0d9a03007d7e0b "gpu02 mlx5_0"') == read_guids(text)


def test_slurms_own_list_decides_who_is_a_node():
    fabric = discover([QUANTUM], slurm_nodes=["ddn-exa1"])
    assert [node.name for node in fabric.nodes()] == ["ddn-exa1"]


@pytest.mark.parametrize(
    "text",
    [
        "MT4129 ConnectX7   Mellanox Technologies", "localhost mlx5_0", "", "  ", "(none) mlx5_1", "node HCA-1",
        "ConnectX-6 Virtio", "Quantum Mellanox Technologies", "a b c d e",
    ],
)  # fmt: skip
def test_descriptions_that_name_no_host(text):
    assert read_description(text)[0] == ""


def shapes():
    return ["fat:3x4", "rail:2x3,rails=4", "pods:2x2x3,rails=2"]


@pytest.mark.parametrize("text", shapes())
def test_what_is_written_as_ibnetdiscover_is_read_back(text):
    fabric = with_manager(generate(parse_shape(text)))
    again = read(netlist(fabric))
    assert {(s.guid, s.name, s.ports) for s in again.switches} == {(s.guid, s.name, s.ports) for s in fabric.switches}
    assert {(h.guid, h.host, h.device, h.kind) for h in again.hcas} == {
        (h.guid, h.host, h.device, h.kind) for h in fabric.hcas
    }
    assert len(again.links) == len(fabric.links)
    before, after = collapse(fabric), collapse(again)
    assert (after.nodes, after.leaves, after.pods) == (before.nodes, before.leaves, before.pods)
    assert "ufm01" not in after.index


def test_planes_in_separate_files_are_joined_by_host():
    whole = generate(parse_shape("planes:2x2x3,rails=4"))
    texts = [plane_text(whole, plane) for plane in (0, 1)]
    fabric = discover(texts)
    assert fabric.planes == ("plane0", "plane1")
    tree = collapse(fabric)
    assert tree.leaf_sizes.tolist() == [3, 3]
    assert all(len(node.hcas) == 4 for node in fabric.nodes())
    assert {hca.plane for hca in fabric.hcas} == {0, 1}


def plane_text(fabric, plane):
    """What ibnetdiscover would say from an adapter in this plane."""
    paragraphs = netlist(fabric).split("\n\n")
    own = {f"S-{switch.guid[2:]}" for switch in fabric.switches if switch.plane == plane}
    own |= {f"H-{hca.guid[2:]}" for hca in fabric.hcas if hca.plane == plane}
    return "\n\n".join(text for text in paragraphs if any(f'"{ident}"\t\t#' in text for ident in own))


def test_the_same_subnet_twice_is_one_plane():
    text = netlist(generate(parse_shape("rail:2x3,rails=2")))
    fabric = discover([text, text])
    assert fabric.planes == ("",)
    assert len(fabric.hcas) == 12
    assert len(fabric.links) == len(read(text).links)


@pytest.mark.parametrize("cut", range(300, 6000, 450))
def test_a_text_that_was_cut_off_is_read_as_far_as_it_goes(cut):
    text = netlist(generate(parse_shape("rail:2x3,rails=2")))[:cut]
    fabric = read(text)
    assert len(fabric.switches) >= 1
    collapse(fabric)


def test_duplicate_guids_are_told():
    text = netlist(generate(parse_shape("fat:2x2")))
    twice = text.replace('"S-2000000000000010"\t\t#', '"S-2000000000000000"\t\t#')
    assert any("two switches have the GUID" in remark for remark in read(twice).remarks)
    same = text.replace("H-1000000000000030", "H-1000000000000000")
    assert any("two adapters have the GUID" in remark for remark in read(same).remarks)


def test_scontrol_show_topology():
    text = """SwitchName=leaf1 Level=0 LinkSpeed=1 Nodes=n[01-03]
SwitchName=leaf2 Level=0 LinkSpeed=1 Nodes=n[04-06]
SwitchName=spine Level=1 LinkSpeed=1 Nodes=n[01-06] Switches=leaf[1-2]
"""
    tree = collapse(read(text))
    assert tree.leaves == ("leaf1", "leaf2")
    assert tree.pods == ("spine",)
    assert tree.nodes_of_leaf(1) == ("n04", "n05", "n06")


def test_blocks_without_a_tree():
    tree = collapse(read("BlockName=b1 Nodes=n[1-4]\nBlockName=b2 Nodes=n[5-8]\nBlockSizes=4\n"))
    assert tree.blocks == ("b1", "b2")
    assert tree.block_of.tolist() == [0] * 4 + [1] * 4


def test_a_plain_file():
    tree = collapse(read("# by hand\nn[1-2] leafA podA blk1\nn[3-4] leafB podA blk2\nn5 leafC podB\n"))
    assert tree.leaves == ("leafA", "leafB", "leafC")
    assert tree.pods == ("podA", "podB")
    assert tree.block_of.tolist() == [0, 0, 1, 1, -1]
    with pytest.raises(FabricError, match="line 3"):
        read("n1 a\nn2 a\nthis is, no; line\n" + "n3 a\n" * 30, source="plain")


def ufm_link(a, a_port, a_name, b, b_port, b_name, label, width="4x"):
    return {
        "source_guid": a, "source_port": str(a_port), "source_port_node_description": a_name,
        "source_port_dname": label, "destination_guid": b, "destination_port": str(b_port),
        "destination_port_node_description": b_name, "destination_port_dname": str(b_port), "width": width,
        "severity": "Info", "name": "x", "capabilities": [],
    }  # fmt: skip


def test_ufm_links():
    links = [
        ufm_link("0c42a103001b7ab6", 1, "gpu01 mlx5_0", "0c42a103009d7af6", 19, "leaf1:19", "HCA-2/1"),
        ufm_link("0c42a103001b7ab7", 1, "gpu02 mlx5_0", "0c42a103009d7af6", 20, "leaf1:20", "HCA-2/1", "2x"),
        ufm_link("0c42a103009d7af6", 30, "leaf1:30", "0c42a103009d7bf6", 1, "spine1:1", "30"),
    ]
    fabric = read(json.dumps(links))
    assert [switch.name for switch in fabric.switches] == ["leaf1", "spine1"]
    assert [node.name for node in fabric.nodes()] == ["gpu01", "gpu02"]
    assert sorted(fabric.links.lanes.tolist()) == [2, 4, 4]
    assert collapse(fabric).leaves == ("leaf1",)
    with pytest.raises(FabricError):
        read(json.dumps(links)[:-20])


def test_lldp_of_hosts_and_of_a_switch():
    def neighbour(name, port):
        return {
            "via": "LLDP",
            "chassis": {name: {"id": {"type": "mac", "value": "aa:bb"}}},
            "port": {"id": {"type": "ifname", "value": port}},
        }

    outputs = {
        f"n{number}": {
            "lldp": {"interface": [{f"eth{rail}": neighbour(f"leaf{rail}", f"swp{number}")} for rail in (0, 1)]}
        }
        for number in (1, 2, 3)
    }  # fmt: skip
    outputs["leaf0"] = {"lldp": {"interface": {"swp50": neighbour("spine0", "swp1")}}}
    outputs["leaf1"] = {
        "lldp": [
            {
                "interface": [
                    {
                        "name": "swp50",
                        "chassis": [{"id": [{"value": "cc:dd"}], "name": [{"value": "spine0"}]}],
                        "port": [{"id": [{"value": "swp2"}]}],
                    }
                ]
            }
        ]
    }
    fabric = read(json.dumps(outputs))
    assert {switch.name for switch in fabric.switches} == {"leaf0", "leaf1", "spine0"}
    tree = collapse(fabric)
    assert tree.leaf_sizes.tolist() == [3]
    assert [len(node.hcas) for node in fabric.nodes()] == [2, 2, 2]
    with pytest.raises(FabricError, match="whose"):
        read(json.dumps(outputs["n1"]))


def test_a_saved_fabric_is_the_same():
    fabric = generate(parse_shape("planes:2x2x3,rails=2"))
    again = read(saved.write(fabric))
    assert (again.switches, again.hcas, again.planes) == (fabric.switches, fabric.hcas, fabric.planes)
    for name in ("a", "a_port", "b", "b_port", "lanes", "lane_gbps", "score"):
        assert np.array_equal(getattr(again.links, name), getattr(fabric.links, name))
    text = saved.write(fabric)
    for broken in (text[:-40], text.replace('"a":[', '"a":[99999999,', 1), text.replace('"plane":1', '"plane":7')):
        with pytest.raises(FabricError):
            read(broken)


@pytest.mark.parametrize("text", ["", "\n\n", "ls: cannot access", "\x00\x01\x02" * 50, "{}", "[]", "[[[[", "<html>"])
def test_what_describes_no_fabric_is_refused_with_a_list_of_what_does(text):
    with pytest.raises(FabricError):
        read(text)


def test_a_hundred_megabytes_of_something_else_are_refused_at_once():
    with pytest.raises(FabricError, match="describes no fabric"):
        read("the quick brown fox jumps, over; the lazy dog\n" * 2_200_000)


WORDS = st.sampled_from(
    ["Switch\t4 ", '"S-10"', '"H-20"', "[1]", "\t# ", '"n1 mlx5_0"', " lid 3 4xHDR\n", "\n", "Ca\t1 ", "SW ", "CA ",
     " 0x0000000000000010 4x HDR - ", "( 'a' - 'b' )\n", "SwitchName=a ", "Nodes=n[1-3]\n", "Switches=a,b\n",
     "BlockName=b ", "BlockSizes=4\n", "{", "}", '"lldp":', '"interface":', "[", "]", '"source_guid":',
     '"destination_guid":', '"0x1"', ",", "n1 leaf pod\n", saved.FORMAT, "\\\n", "#", "n[", "99999999999999999999"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SOURCES), st.lists(WORDS, max_size=25).map("".join) | st.text(max_size=80))
def test_no_text_breaks_a_reader(source, text):
    source.recognise(text)
    try:
        fabric = source.read(text)
    except FabricError:
        return
    collapse(fabric)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(shapes()), st.data())
def test_no_damage_to_a_real_text_breaks_the_reader_or_the_merge(shape, data):
    lines = netlist(generate(parse_shape(shape))).splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        other = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "swap", "cut"])):
            case "drop":
                lines[place] = ""
            case "double":
                lines.insert(place, lines[other])
            case "swap":
                lines[place], lines[other] = lines[other], lines[place]
            case "cut":
                lines[place] = lines[place][: data.draw(st.integers(0, 40))]
    try:
        fabric = read("\n".join(lines), source="ibnetdiscover")
    except FabricError:
        return
    inspect(merge(fabric))
