"""The site's file of bad links: what a look adds to it, for how long errors are remembered, and when it is too old."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainmaster.cli import main
from trainmaster.errors import FabricError
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.health import ports_of
from trainmaster.fabric.link_health import LinkHealth, decode, encode, read, stale
from trainmaster.fabric.model import Fabric, Links
from trainmaster.fabric.sources.saved import write
from trainmaster.fabric.survey import Memory, apply, survey

WHOLE = generate(parse_shape("rail:4x4,rails=4"))
HOUR = 3600.0


def without(fabric: Fabric, *gone: int) -> Fabric:
    kept = np.setdiff1d(np.arange(len(fabric.links)), gone)
    names = ("a", "a_port", "b", "b_port", "lanes", "lane_gbps", "score")
    return replace(fabric, links=Links(**{name: getattr(fabric.links, name)[kept] for name in names}))


def link_of(host: str, rail: int) -> int:
    count = len(WHOLE.switches)
    number = next(n for n, hca in enumerate(WHOLE.hcas) if hca.host == host and hca.device == f"mlx5_{rail}")
    links = WHOLE.links
    return int(np.flatnonzero((links.a == count + number) | (links.b == count + number))[0])


def errors_at(link: int, count: int) -> dict[tuple[str, int], dict[str, int]]:
    guid, _, port = ports_of(WHOLE, link)[0].rpartition("/")
    return {(guid, int(port)): {"SymbolErrorCounter": count}}


def look(fabric: Fabric = WHOLE, last: LinkHealth | None = None, *, at_s: float = 0.0, **more: object) -> LinkHealth:
    return survey(fabric, Memory(last=last), now_s=at_s, **more)  # type: ignore[arg-type]


def test_a_whole_fabric_has_no_bad_nodes_and_knows_all() -> None:
    health = look()
    assert not health.nodes and not health.links and health.known == "n[01-16]"


def test_a_cut_cable_costs_its_node_a_rail_and_names_it() -> None:
    health = look(without(WHOLE, link_of("n03", 2)))
    assert health.scores() == {"n03": 0.75}
    (one,) = health.nodes["n03"].evidence
    assert (one.code, one.subject) == ("rail-missing", "mlx5_2")


def test_a_node_that_is_gone_has_nothing_left_and_one_that_slurm_does_not_have_is_not_missed() -> None:
    gone = without(WHOLE, *(link_of("n05", rail) for rail in range(4)))
    gone = replace(gone, hcas=tuple(replace(hca, host="" if hca.host == "n05" else hca.host) for hca in gone.hcas))
    last = look()
    health = look(gone, last)
    assert health.scores() == {"n05": 0.0} and health.nodes["n05"].evidence[0].code == "absent"
    others = [f"n{number:02}" for number in range(1, 17) if number != 5]
    assert not survey(gone, Memory(last=last, slurm_nodes=others), now_s=1.0).nodes


def test_a_cable_in_a_wrong_socket_counts_half_and_says_where_it_is() -> None:
    one, other = link_of("n02", 1), link_of("n06", 3)
    links = WHOLE.links
    assert links.b[one] < len(WHOLE.switches) and links.b[other] < len(WHOLE.switches)
    b, b_port = links.b.copy(), links.b_port.copy()
    b[[one, other]], b_port[[one, other]] = b[[other, one]], b_port[[other, one]]
    health = look(replace(WHOLE, links=replace(links, b=b, b_port=b_port)))
    assert health.scores() == {"n02": 0.875, "n06": 0.875}
    assert "su002" in health.nodes["n02"].evidence[0].detail


def test_errors_are_held_against_a_link_until_the_time_is_over() -> None:
    link = link_of("n07", 0)
    first = look(counters=errors_at(link, 4000), hours=1.0)
    assert first.nodes["n07"].evidence[0].code == "errors" and first.nodes["n07"].score < 0.8
    later = look(last=first, at_s=20 * HOUR, counters={}, hours=1.0)
    assert later.scores() == first.scores() and later.links[0].seen_at_s == 0.0
    assert not look(last=later, at_s=25 * HOUR).nodes, "counted from when they were seen"


def test_an_uplink_that_is_gone_costs_all_nodes_below_a_little() -> None:
    count = len(WHOLE.switches)
    trunk = int(np.flatnonzero((WHOLE.links.a < count) & (WHOLE.links.b < count))[0])
    health = look(without(WHOLE, trunk))
    assert len(health.nodes) == 4 and all(0.9 < node.score < 1 for node in health.nodes.values())
    assert {one.code for node in health.nodes.values() for one in node.evidence} == {"uplink"}


def test_the_file_says_the_same_when_it_is_read_and_lowers_links_by_their_ports() -> None:
    link = link_of("n07", 0)
    health = look(counters=errors_at(link, 4000), hours=1.0)
    assert decode(encode(health)) == health
    score = apply(WHOLE, health).links.score
    assert score[link] == health.links[0].score and (np.delete(score, link) == 1).all()


def test_an_old_file_is_refused_with_its_age(tmp_path: Path) -> None:
    path = tmp_path / "links.json"
    path.write_text(encode(look(at_s=100.0)))
    assert read(path, now_s=100.0 + 6 * HOUR).known
    with pytest.raises(FabricError, match=r"7\.0 hours ago and good for 6\.0, so it is ignored"):
        read(path, now_s=100.0 + 7 * HOUR)
    assert "ahead" in stale(look(at_s=9000.0), now_s=0.0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}', "\x00", '{"format": "trainmaster link health 1"}'])
def test_other_texts_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(FabricError):
        read(tmp_path / "file", now_s=0.0)


def test_the_command_counts_errors_from_look_to_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = link_of("n07", 0)
    (tmp_path / "fabric").write_text(write(WHOLE))
    guid, _, port = ports_of(WHOLE, link)[0].rpartition("/")

    def at(count: int) -> str:
        (tmp_path / "counters").write_text(f"   GUID {guid} port {port}: [SymbolErrorCounter == {count}]\n")
        words = ["fabric", "health", "--from", str(tmp_path / "fabric"), "--counters", str(tmp_path / "counters")]
        assert main([*words, "--publish", str(tmp_path / "links.json")]) == 0
        return capsys.readouterr().out

    assert "0 nodes" in at(100_000), "what has gathered before the first look says nothing"
    assert "0 nodes" in at(100_000)
    assert "n07: score 0.7" in at(104_000)
    before = (tmp_path / "links.json").read_text()
    assert main(["fabric", "health", "--from", str(tmp_path / "fabric"), "--publish", str(tmp_path / "links.json"),
                 "--dry-run"]) == 0  # fmt: skip
    assert (tmp_path / "links.json").read_text() == before
    capsys.readouterr()
    source = ["--from", str(tmp_path / "fabric"), "--links", str(tmp_path / "links.json")]
    assert main(["fabric", "place", *source, "--count", "4", "--busy", "n[01-04,09-16]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["degraded"] == 1
    assert main(["fabric", "place", *source, "--count", "3", "--busy", "n[01-04,09-16]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"] == ["n05", "n06", "n08"]


def test_a_look_that_misses_much_of_the_fabric_is_not_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fabric", "health", "--from", str(tmp_path / "fabric"), "--publish", str(tmp_path / "links.json")]
    (tmp_path / "fabric").write_text(write(WHOLE))
    assert main(words) == 0
    before = (tmp_path / "links.json").read_text()
    (tmp_path / "fabric").write_text(write(generate(parse_shape("rail:3x4,rails=4"))))
    assert main(words) == 2
    assert "4 of 16 nodes are not on the fabric any more" in capsys.readouterr().err
    assert (tmp_path / "links.json").read_text() == before
    assert main([*words, "--insist"]) == 0 and "n13: score 0" in capsys.readouterr().out


def test_links_of_an_old_file_are_ignored_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fabric").write_text(write(WHOLE))
    (tmp_path / "links.json").write_text(encode(look(without(WHOLE, link_of("n03", 2)))))
    assert main(["fabric", "show", "--from", str(tmp_path / "fabric"), "--links", str(tmp_path / "links.json")]) == 0
    said = capsys.readouterr()
    assert "ignored" in said.err and "n03" not in said.out.replace("n[", "")
