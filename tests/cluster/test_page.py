"""The page in a real browser, in front of a real cluster: rails of its fabric, and what may be asked for there."""

import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import real_lab
import real_page
from real_controller import controller, said, state_of
from trainmaster.controller.journal import Journal
from trainmaster.controller.memory import NodeState
from trainmaster.lab import ib
from trainmaster.lab.cluster import Lab, LabSpec

pytestmark = pytest.mark.cluster
LAB = LabSpec(fabric="rail:2x3,rails=4", gpus=4)
POLICY = """
tick_s = 0.5
metrics = ""
[modes]
default = "act"
[drains]
share_max = 0.5
[guarantee.batch]
nodes = 4
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with real_page.browser() as found:
        yield found


@pytest.fixture
def whole(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.fault("ib-renew")


def discovered(lab: Lab, file: Path) -> Path:
    done = ib.run_tool(lab, ["ibnetdiscover"])
    assert done.returncode == 0, done.stderr
    file.write_text(done.stdout)
    return file


def test_a_pulled_cable_shows_on_the_map_and_a_person_releases_a_node(
    whole: Lab, chromium: Browser, tmp_path: Path
) -> None:
    lab = whole
    file, me = discovered(lab, tmp_path / "fabric.txt"), getpass.getuser()
    words = ("--fabric", str(file), "--allow-actions")
    with controller(tmp_path, POLICY), real_page.page_process(tmp_path, *words) as url:
        page = real_page.opened(chromium, url)
        real_page.wait_for(page, "() => document.getElementById('stale').hidden")
        # Units of the fabric are leaves of the map. All rails are sound, and nothing is red.
        assert page.evaluate(real_page.LEAVES) == [
            ["su001", ["n01", "n02", "n03"], [0, 0, 0, 0]],
            ["su002", ["n04", "n05", "n06"], [0, 0, 0, 0]],
        ]
        page.click("text=Rails and links")
        assert real_page.colour(page, "n02", corner=True) != real_page.painted(page, "bad")
        lab.fault("ib-cut", "n02:1")
        discovered(lab, file)
        real_page.wait_for(
            page, "() => document.querySelector('canvas[role=application]').fleet.facts.nodes.n02.links < 1"
        )
        page.wait_for_timeout(100)
        assert [rails for _, _, rails in page.evaluate(real_page.LEAVES)] == [[0, 1, 0, 0], [0, 0, 0, 0]]
        assert real_page.colour(page, "n02", corner=True) == real_page.painted(page, "bad")
        assert real_page.colour(page, "n03", corner=True) != real_page.painted(page, "bad")
        page.focus("canvas[role=application]")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert "links 75 % sound" in (page.text_content("#spoken") or "")
        real_page.shoot(page, "rails")

        # A file that holds nothing, as while it is being written anew, takes nothing away.
        file.write_text("")
        page.wait_for_timeout(1500)
        assert [rails for _, _, rails in page.evaluate(real_page.LEAVES)] == [[0, 1, 0, 0], [0, 0, 0, 0]]

        # A node that was taken out waits for a person; without a second word nothing is asked.
        said(tmp_path, "quarantine", "n05", "--reason", "smells of smoke")
        real_lab.until(lambda: state_of(tmp_path, "n05") is NodeState.QUARANTINED, "n05 is out")
        page.goto(url.partition("#")[0] + "#/node/n05")
        page.click("text=Release this node")
        page.click("dialog >> text=Cancel")
        assert asked(tmp_path) == [] and "DRAIN" in real_lab.Watched(lab, tmp_path).node("n05").state
        page.focus("text=Release this node")
        page.keyboard.press("Enter")
        page.keyboard.type("a new fan")
        real_page.shoot(page, "release", whole=False)
        page.keyboard.press("Enter")
        real_page.wait_for(page, "() => !document.getElementById('ask').open")
        assert f"Asked by {me}" in (page.text_content("#spoken") or "")
        real_lab.until(
            lambda: "DRAIN" not in real_lab.Watched(lab, tmp_path).node("n05").state, "n05 is back in service"
        )
        assert asked(tmp_path) == [f"{me} (page): a new fan"]
        # Who it was stands in the node's life on the page as well, and where Slurm's people look.
        page.wait_for_selector(f"main >> text={me} (page): a new fan")
        assert f"{me} (page): a new fan" in said(tmp_path, "why", "n05")
        assert not real_page.hard_to_use(page)
        # All of it without a mouse, with a name for everything, and nothing too faint; also a job of plain sbatch.
        job_id = real_lab.Watched(lab, tmp_path).submit("sleep 600", "--nodes=2")
        for tab in ("Jobs", "Maintenance", "Decisions", "Fleet"):
            real_page.tab_to(page, tab)
            page.keyboard.press("Enter")
            page.wait_for_selector(f"h1 >> text={tab}")
            assert page.get_attribute("nav [aria-current]", "href") == (page.evaluate("location.hash") or "#/")
            assert page.evaluate("document.activeElement.id") == "main"
            if tab == "Jobs":
                page.wait_for_selector(f"a[href='#/job/{job_id}']", timeout=30_000)
            assert not real_page.hard_to_use(page), tab
            assert tab in page.title()
        real_page.tab_to(page, "As a table")
        page.keyboard.press("Enter")
        page.wait_for_selector("table >> text=n06")
        assert not real_page.hard_to_use(page)
        page.goto(f"{url.partition('#')[0]}#/job/{job_id}")
        page.wait_for_selector("text=It was not started by trainmaster's launcher")
        assert not real_page.hard_to_use(page)
        real_lab.Watched(lab, tmp_path).client.cancel(job_id)
        page.close()


def asked(folder: Path) -> list[str]:
    """Releases that were asked for, as the journal tells them."""
    journal = Journal(folder / "journal.sqlite", read_only=True)
    try:
        return [event.detail for event in journal.events("node:n05") if event.what == "release"]
    finally:
        journal.close()
