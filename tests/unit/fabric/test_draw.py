"""Pictures: everything that is there is drawn, what is broken is red, and nothing in a name breaks out."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from trainmaster.fabric import draw, draw_grid
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.merge import Merged, merge
from trainmaster.fabric.model import Links

SVG = "{http://www.w3.org/2000/svg}"


def fabric(shape: str = "pods:2x2x4,rails=2,over=2", *, broken_host: str = "") -> Merged:
    found = generate(parse_shape(shape))
    if broken_host:
        links = found.links
        number = next(at for at, hca in enumerate(found.hcas) if hca.host == broken_host) + len(found.switches)
        score = links.score.copy()
        score[(links.a == number) | (links.b == number)] = 0.5
        found = replace(found, links=replace(links, score=score))
    return merge(found)


def picture(merged: Merged, *jobs: draw.Job) -> ElementTree.Element:
    return ElementTree.fromstring(draw.svg(merged.tree, jobs=jobs, sound=draw.sound_of(merged), title="<&>"))


def rings(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [path for path in root.iter(f"{SVG}path") if path.get("class", "").startswith("ring")]


@pytest.mark.parametrize("shape", ["rail:1x4", "pods:3x2x4,rails=2", "fat:4x8", "rail:2x32"])
def test_every_node_once(shape: str) -> None:
    merged = fabric(shape)
    nodes = [one.get("data-node") for one in picture(merged).iter(f"{SVG}rect") if one.get("data-node")]
    assert sorted(nodes, key=str) == sorted(merged.tree.nodes)


def test_a_broken_rail_is_red_on_its_leaf_and_its_node() -> None:
    assert not [one for one in picture(fabric()).iter() if one.get("class") == "bad" and one.tag != f"{SVG}path"]
    merged = fabric(broken_host=fabric().tree.nodes[5])
    red = [one for one in picture(merged).iter() if one.get("class") == "bad"]
    titles = [title.text or "" for one in red for title in one.iter(f"{SVG}title")]
    assert any("rail 0: 1 link not sound" in title for title in titles)
    assert any(merged.tree.nodes[5] in title for title in titles)


def test_an_uplink_marks_its_leaf_and_not_every_node_below_it() -> None:
    found = generate(parse_shape("rail:2x8,rails=2"))
    links, switches = found.links, len(found.switches)
    uplink = next(at for at in range(len(links)) if links.a[at] < switches and links.b[at] < switches)
    scores = links.score.copy()
    scores[uplink] = 0.3
    merged = merge(replace(found, links=replace(links, score=scores)))
    root = picture(merged)
    assert (merged.tree.score < 1).sum() == 8, "the nodes below pay for it"
    corners = [
        one for one in root.iter(f"{SVG}path") if one.get("class") == "bad" and one.find(f"{SVG}title") is not None
    ]
    assert not corners
    words = " ".join(root.itertext())
    assert "1 uplink not sound" in words and "▲1" in words and "nodes with links not sound" not in words


@pytest.mark.parametrize(("count", "holes"), [(8, 0), (16, 0), (12, 0), (33, 3)])
def test_a_grid_has_few_empty_places(count: int, holes: int) -> None:
    columns = draw_grid.columns_of(count, 105.0, 75.0, aspect=1.3)
    assert -(-count // columns) * columns - count <= holes


def test_edges_that_leave_a_leaf_and_a_pod() -> None:
    merged = fabric()
    names = merged.tree.nodes
    assert not rings(picture(merged, draw.Job(name="in one leaf", nodes=names[:4])))
    (inside,) = rings(picture(merged, draw.Job(name="in one pod", nodes=names[:8])))
    assert inside.get("d", "").count("M") == 2
    both = rings(picture(merged, draw.Job(name="in two", nodes=names)))
    assert [path.get("d", "").count("M") for path in both] == [2, 2]
    assert float(both[1].get("stroke-width", "0")) > float(both[0].get("stroke-width", "0"))


def test_names_are_text(tmp_path: object) -> None:
    merged = fabric()
    page = draw.html(merged.tree, jobs=[draw.Job(name="<script>alert(1)</script>", nodes=merged.tree.nodes[:2])])
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page


def test_colours_of_many_jobs_differ() -> None:
    assert len({draw.colour_of(number) for number in range(30)}) == 30


def test_a_dead_adapter_is_missed_on_its_own_rail_and_not_on_the_last() -> None:
    whole = generate(parse_shape("rail:2x4,rails=4"))
    dead = next(at for at, hca in enumerate(whole.hcas) if hca.device == "mlx5_1") + len(whole.switches)
    links = whole.links
    left = (links.a != dead) & (links.b != dead)
    ends = (links.a[left], links.a_port[left], links.b[left], links.b_port[left])
    cut = Links.of(*ends, lane_gbps=links.lane_gbps[left])
    rails = draw.sound_of(merge(replace(whole, links=cut))).rails
    assert [tuple(row) for row in (rails < 1).tolist()] == [(False, True, False, False)] + 7 * [4 * (False,)]
