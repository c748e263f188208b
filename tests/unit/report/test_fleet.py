"""The fleet's report: node-time adds up, and a drain looks wrong only when nothing else speaks against the node."""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.controller.journal import Journal
from trainmaster.report import fleet, page
from trainmaster.report.gather import Notes, verdicts
from trainmaster.report.report_cli import configure
from trainmaster.report.text import fleet as as_text
from trainmaster.slurm.accounting import NodeEvent

T0 = 1_793_000_000
DAY_S = 86400
CLUSTER = NodeEvent(node="", start_s=T0 - 10 * DAY_S, end_s=None, node_count=3)
reasons = st.sampled_from(("Not responding", "[HC] gpu.xid: 79", "firmware", "bob", "[TM] flap: 3 times", ""))
moments = st.integers(T0 - 5_000, T0 + 15_000)
events = st.lists(
    st.builds(
        NodeEvent,
        node=st.sampled_from(("n01", "n02", "n03")),
        start_s=moments,
        end_s=st.none() | moments,
        state=st.sampled_from(("DOWN*", "DRAIN", "IDLE+DRAIN")),
        reason=reasons,
    ),
    max_size=8,
)


@settings(max_examples=80)
@given(events)
def test_node_time_adds_up_also_when_events_overlap(found):
    values = fleet.values((CLUSTER, *found), T0, T0 + 10_000, None, ())
    assert values["node_seconds"] == 30_000 == sum(values["parts_s"].values())
    assert all(seconds >= 0 for seconds in values["parts_s"].values())
    assert round(sum(one["node_hours"] for one in values["causes"]) * 3600) == 30_000 - values["parts_s"]["in service"]
    for how in (fleet.DOWN, fleet.DRAINED, fleet.MAINTENANCE):
        assert sum(one[how] for one in values["history"]) == values["parts_s"][how]
    assert sum(one["node_seconds"] for one in values["history"]) == 30_000
    # Second by second: a node is out while any of its events lasts.
    for node in ("n01", "n02", "n03"):
        spans = [
            (one.start_s, one.end_s if one.end_s is not None else T0 + 10_000) for one in found if one.node == node
        ]
        edges = sorted({T0, T0 + 10_000, *(min(max(at, T0), T0 + 10_000) for span in spans for at in span)})
        covered = sum(
            end - begin
            for begin, end in pairwise(edges)
            if any(first <= begin and end <= last for first, last in spans)
        )
        mine = sum(one.end_s - one.begin_s for one in fleet.outs(found, T0, T0 + 10_000) if one.node == node)
        assert mine == covered


def test_a_growing_cluster_is_counted_as_large_as_it_was():
    grown = [NodeEvent(node="", start_s=T0 - 5, end_s=T0 + 100, node_count=4), CLUSTER]
    assert (
        fleet.size_s([grown[0], NodeEvent(node="", start_s=T0 + 100, end_s=None, node_count=8)], T0, T0 + 200) == 1200
    )


def drain(start_s: int, lasted_s: int | None, reason: str = "[HC] gpu.xid: 79", node: str = "n01") -> NodeEvent:
    end_s = None if lasted_s is None else start_s + lasted_s
    return NodeEvent(node=node, start_s=start_s, end_s=end_s, state="DRAIN", reason=reason)


def doubted(*found: NodeEvent) -> list[str]:
    values = fleet.values((CLUSTER, *found), T0, T0 + 10 * DAY_S, None, ())
    return [one["node"] for one in values["false_drain_candidates"]]


def test_a_short_drain_of_a_node_that_nothing_else_befell_may_have_been_wrong():
    assert doubted(drain(T0 + DAY_S, 60)) == ["n01"]
    assert doubted(drain(T0 + DAY_S, 1800)) == []
    assert doubted(drain(T0 + DAY_S, None)) == []
    assert doubted(drain(T0 + DAY_S, 60, reason="bob")) == []
    down = drain(T0 + DAY_S + 3600, 60, reason="Not responding")
    assert doubted(drain(T0 + DAY_S, 60), down) == []
    assert doubted(drain(T0 + 3 * DAY_S, 60), down) == ["n01"]


def test_nodes_that_are_out_often_are_named_and_reasons_are_no_markup(tmp_path: Path):
    often = [drain(T0 + day * DAY_S, 7200, reason="[HC] [bold]x: y") for day in range(3)]
    values = fleet.values((CLUSTER, *often), T0, T0 + 5 * DAY_S, None, ("a note [x]",))
    assert [(one["node"], one["times"]) for one in values["often_out"]] == [("n01", 3)]
    text = as_text(values)
    assert "[HC] [bold]x: y" in text and "a note [x]" in text and json.dumps(values)
    notes = Notes()
    assert verdicts(tmp_path / "none", notes) is None and "rule of three" in notes.all()[0]
    Journal(tmp_path / "journal").close()
    assert verdicts(tmp_path / "journal", Notes()) == []


def test_a_fleet_page_needs_no_other_file_and_reasons_are_no_html(tmp_path: Path, capsys):
    pytest.importorskip("matplotlib")
    lines = [
        "Cluster|NodeName|TimeStart|TimeEnd|State|User|TRES|ClusterNodes|Reason",
        "lab||1793000000|Unknown||root|cpu=8|n[01-04]|Cluster Registered TRES",
        "lab|n01|1793040000|1793040060|DRAIN|root|cpu=2||[HC] <b>gpu.xid: 79",
        "lab|n02|1793050000|1793060000|DOWN*|slurm|cpu=2||Not responding",
        "lab|n03|1793055000|1793065000|DRAIN|bob|cpu=2||costs $5 and $6",
    ]
    (tmp_path / "events").write_text("\n".join(lines) + "\n")
    parser = argparse.ArgumentParser()
    configure(parser)
    argv = ["fleet", "--events-file", str(tmp_path / "events"), "--journal", str(tmp_path / "none")]
    argv += ["--since", "2026-10-26T06:00+00:00", "--until", "2026-10-28T00:00+00:00"]
    args = parser.parse_args([*argv, "--html", str(tmp_path / "page.html")])
    assert args.run(args) == 0 and capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg ") == 2 and "<b>gpu" not in page and "&lt;b&gt;gpu" in page
    assert "costs $5 and $6" in page.split("</svg>")[1], "a dollar is not the beginning of a formula"
    assert not [text for text in page.split('"') if text.startswith("http") and "w3.org" not in text
                and "purl.org" not in text and "creativecommons" not in text]  # fmt: skip
    from trainmaster.report.pictures import COLOURS

    for name, marker in COLOURS.items():
        assert marker not in page and f"--{name.replace(' ', '-')}:" in page


def test_the_page_of_a_fleet_that_nothing_befell_is_made_too():
    pytest.importorskip("matplotlib")
    made = page.fleet(fleet.values((CLUSTER,), T0, T0 + 100, None, ()))
    assert "100.000 %" in made and "<svg" not in made
