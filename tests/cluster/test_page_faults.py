"""The page in a real browser while nodes die, jobs swap them and a train goes through: it shows what happened."""

import getpass
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import real_lab
import real_page
from real_controller import POLICY as PLAIN
from real_controller import controller
from trainmaster.lab.cluster import LabSpec, up
from trainmaster.launcher.submit.executor import submit

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from measure import train_figures, train_site

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
STEPPER = Path(__file__).parents[1] / "programs" / "stepper.py"
POLICY = f"""{PLAIN}
[guarantee.batch]
nodes = 6
failure_buffer = 1
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with real_page.browser() as found:
        yield found


def test_a_node_dies_and_its_job_swaps_it(chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"SlurmdTimeout": "10", "KillWait": "5"}
    with up(LabSpec(nodes=8, leaf=4, settings=settings)) as lab, controller_of(lab, tmp_path, monkeypatch):
        spec = real_lab.small(nodes=3, spares=1)
        job = submit([sys.executable, str(STEPPER)], spec=spec, folder=tmp_path / "jobs")
        first = real_lab.wait_for(job, "RUNNING")
        real_lab.wait_for(job, "PROGRESS")
        victim, (spare,) = first.nodes[-1], first.spares
        with real_page.page_process(tmp_path) as url:
            bare = url.partition("#")[0]
            page = real_page.opened(chromium, url)
            assert "token" not in page.url
            real_page.wait_for(page, "() => document.getElementById('stale').hidden")
            assert real_page.colour(page, victim) == real_page.painted(page, "busy")
            # A job has to be under way for a while, and to have been seen so, before it can be seen to go back.
            sampled = (
                "number => fetch(`/api/job/${number}`).then((a) => a.json()).then((a) => a.life.curves.loss ?? [])"
            )
            real_page.wait_for(page, f"async (number) => (await ({sampled})(number)).at(-1)?.[0] > 60", job.job_id)
            lab.fault("node-death", victim)
            real_page.wait_for(page, "() => document.querySelector('[data-look=down] b').textContent === '1'")
            page.wait_for_timeout(100)
            assert real_page.colour(page, victim) == real_page.painted(page, "down")
            # What the controller sees of it comes by itself, with its why.
            page.wait_for_selector(".feed >> text=does not answer", timeout=90_000)
            real_page.shoot(page, "fleet")
            # By keyboard: to a node, and what is known of it.
            page.focus("canvas[role=application]")
            page.keyboard.press("Home")
            assert "n01" in (page.text_content("#spoken") or "")
            page.keyboard.press("Enter")
            page.wait_for_selector("h1 >> text=n01")
            page.goto(f"{bare}#/node/{victim}")
            page.wait_for_selector("h1 >> text=" + victim)
            page.wait_for_selector("text=went down", timeout=60_000)
            real_page.shoot(page, "node")

            # The job's own page: the swap, its cause, and as many seconds lost as its record says.
            real_lab.wait_for(job, "PROGRESS", count=2)
            page.goto(f"{bare}#/jobs")
            page.click(f"a[href='#/job/{job.job_id}']")
            row = page.locator("table tbody tr").nth(1)
            page.wait_for_selector(f"text=new: {spare}", timeout=60_000)
            text = row.inner_text()
            assert spare in text and "0.1" in text
            assert "node death" in page.locator("table tbody tr").first.inner_text()
            life = page.evaluate("number => fetch(`/api/job/${number}`).then((answer) => answer.json())", job.job_id)
            lost_s = sum(cycle["lost_s"] or 0.0 for cycle in life["life"]["cycles"])
            assert lost_s > 0 and life["life"]["lost_s"] == lost_s
            shown = page.locator(".figures div", has_text="lost to restarts").locator(".big").inner_text()
            assert shown == f"{lost_s:.1f} s" if lost_s < 9.5 else shown == f"{lost_s:.0f} s"
            # The loss that it reports has become a line, which falls.
            page.wait_for_selector("svg.chart[aria-label^='loss from']", timeout=60_000)
            label = page.get_attribute("svg.chart[aria-label^='loss from']", "aria-label") or ""
            begun, now = (float(word) for word in re.findall(r"(?:from|to) ([0-9.e-]+)", label)[:2])
            assert now < begun and "gone back 1 time" in label
            page.wait_for_timeout(5000)
            real_page.shoot(page, "job")
            page.goto(f"{bare}#/decisions")
            page.wait_for_selector("h1 >> text=Decisions")
            real_page.shoot(page, "decisions")
        # The page's own process is gone: it says since when, and does not pretend.
        real_page.wait_for(page, "() => document.getElementById('stale').textContent.includes('lost its server')")
        real_page.shoot(page, "stale")
        page.close()
        job.cancel()


def controller_of(lab, folder: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    return controller(folder, POLICY)


@pytest.mark.timeout(600)
def test_a_train_is_paused_and_goes_on_and_never_shows_less_than_the_guarantee(
    chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = getpass.getuser()
    with train_site.site(tmp_path, nodes=8, promised=5, domain=2, operation_s=3.0) as at:
        monkeypatch.setenv("SLURM_CONF", at.lab.env["SLURM_CONF"])
        with train_site.controller(at), real_page.page_process(tmp_path, "--allow-actions") as url:
            real_lab.until(at.is_watched, "the controller has looked")
            page = real_page.opened(chromium, url)
            page.goto(url.partition("#")[0] + "#/train")
            page.wait_for_selector("text=No train is under way")
            page.evaluate(real_page.REMEMBER_CAPACITY)
            at.said("train", "emergency", "spring", *at.policy, "--reason", "a bad driver")
            page.wait_for_selector(".track .here", timeout=60_000)
            real_lab.until(lambda: at.state().trains["spring"].visited >= 1, "the canary is back", timeout_s=240)
            keys = "document.querySelector('[data-train=spring] .keys')"
            real_page.wait_for(page, f"() => /^1 host visited[12] in hand/.test({keys}.textContent)", timeout_s=120)
            real_page.shoot(page, "train")
            page.click("text=Pause this train")
            page.keyboard.type("a demo at noon")
            page.keyboard.press("Enter")
            page.wait_for_selector(f"[data-train=spring] >> text={me} (page): a demo at noon", timeout=60_000)
            assert at.state().trains["spring"].paused == f"{me} (page): a demo at noon"
            real_lab.until(lambda: not at.state().in_hand(), "no host is in hand any more", timeout_s=240)
            page.wait_for_selector("text=nothing, until it goes on")
            page.click("text=Let it go on")
            page.keyboard.press("Enter")
            real_lab.until(lambda: train_site.is_through(at, "spring"), "every host is through", timeout_s=280)
            page.wait_for_selector("[data-train=spring] >> text=8 hosts visited", timeout=60_000)
            shown = [int(count) for count in page.evaluate("window.capacityShown")]
            page.close()
        # The page never showed less than was promised, nor did an observer see less who asks Slurm alone.
        least = min(train_figures.serving(one) for one in at.looks())
        assert at.promised <= min(shown) < max(shown) == 8 and at.promised <= least < 8
        assert json.loads((tmp_path / "now" / "n01").read_text()) == train_site.NEW
