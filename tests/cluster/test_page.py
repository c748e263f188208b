"""The page in a real browser, in front of a real cluster with faults."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import real_lab
import real_page
from real_controller import controller
from trainmaster.lab.cluster import Lab, LabSpec

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
LAB = LabSpec(nodes=8, leaf=4, settings={"SlurmdTimeout": "10", "KillWait": "5"})
POLICY = """
tick_s = 0.5
metrics = ""
[modes]
default = "act"
[drains]
share_max = 0.5
[guarantee.batch]
nodes = 5
failure_buffer = 1
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with real_page.browser() as found:
        yield found


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> real_lab.Watched:
    return real_lab.Watched(lab, tmp_path)


def pictures(tmp_path: Path) -> Path:
    """Where pictures go: docs/pictures when asked for, else nowhere that stays."""
    return Path(os.environ.get("TRAINMASTER_PICTURES", tmp_path))


def opened(chromium: Browser, url: str) -> Page:
    page = chromium.new_page(viewport={"width": 1280, "height": 800}, device_scale_factor=2)
    page.goto(url)
    page.wait_for_selector("canvas[role=application]", timeout=60_000)
    return page


def test_the_map_changes_colour_when_a_node_dies(site: real_lab.Watched, chromium: Browser, tmp_path: Path) -> None:
    job_id = site.submit("srun sleep 600", "--nodes=3", "--exclusive", "--requeue")
    real_lab.until(lambda: site.job(job_id).state == "RUNNING", "the job runs")
    victim = max(site.client.hostnames(site.job(job_id).nodes))
    with controller(tmp_path, POLICY), real_page.page_process(tmp_path) as url:
        page = opened(chromium, url)
        assert "token" not in page.url
        real_page.wait_for(page, "() => document.getElementById('stale').hidden")
        assert real_page.colour(page, victim) == real_page.painted(page, "busy")
        site.lab.fault("node-death", victim)
        real_page.wait_for(page, "() => document.querySelector('[data-look=down] b').textContent === '1'")
        page.wait_for_timeout(100)
        assert real_page.colour(page, victim) == real_page.painted(page, "down")
        # The decision about its job comes by itself, with its why.
        page.wait_for_selector(".feed >> text=came back: node_fail", timeout=90_000)
        real_page.shoot(page, pictures(tmp_path), "fleet")
        # By keyboard: to a node, into it, and what is known of it.
        page.focus("canvas[role=application]")
        page.keyboard.press("Home")
        assert "n01" in (page.text_content("#spoken") or "")
        page.keyboard.press("Escape")
        page.goto(url.partition("#")[0] + f"#/node/{victim}")
        page.wait_for_selector("h1 >> text=" + victim)
        page.wait_for_selector("text=went down")
        real_page.shoot(page, pictures(tmp_path), "node")
        # The controller dies: the page says since when, and does not pretend.
        page.goto(url.partition("#")[0] + "#/")
    real_page.wait_for(page, "() => document.getElementById('stale').textContent.includes('lost its server')")
    page.close()
    site.client.cancel(job_id)
    site.lab.fault("node-return", victim)
