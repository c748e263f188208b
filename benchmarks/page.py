"""What a large fleet costs the page: until a browser has drawn it, and until a change of one node is drawn.

    python benchmarks/page.py --quick            2,048 nodes, a minute
    python benchmarks/page.py                    512, 2,048 and 8,192
    python benchmarks/page.py --shots FOLDER     and what it looked like

A headless Chromium on this machine opens the page of an invented fleet, five times again and five times as a browser
that has never been there; then nodes die, one at a time. Measured in the browser: from the start of navigation to the
first picture (`first_paint`, and `first_visit` of a new browser, in which the token is exchanged first), and from the
arrival of an event to the picture after it.
And on the server: CPU seconds of one look, and bytes of the first answer and of one change.

Progress goes to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from trainmaster.controller.journal import Journal
from trainmaster.controller.memory import Memory, NodeRecord, NodeState
from trainmaster.controller.policy import Guarantee, Policy
from trainmaster.page import changes
from trainmaster.page.doors import Doors
from trainmaster.page.facts import Leaf, Pod, Wiring
from trainmaster.page.serving import Server, Serving, listen
from trainmaster.page.watching import Watch
from trainmaster.slurm.values import Job, Node

GOALS = {"nodes2048_first_paint_ms": {"at_most": 200.0}, "nodes2048_change_ms": {"at_most": 200.0}}
CHROMIUM = "/usr/bin/chromium"
LEAF, POD = 16, 256


class Fleet:
    """A Slurm of numbers: `nodes` and `all_jobs` are all that the page asks."""

    def __init__(self, size: int) -> None:
        self.names = [f"n{number:05}" for number in range(size)]
        self.state = {name: "ALLOCATED" if at < size * 0.93 else "IDLE" for at, name in enumerate(self.names)}
        for at in range(5, size, 301):
            self.state[self.names[at]] = "DOWN*"
        for at in range(9, size, 413):
            self.state[self.names[at]] = "IDLE+DRAIN"

    def leaves(self) -> dict[str, str]:
        size = len(self.names)
        return {",".join(self.names[at : at + LEAF]): f"leaf{at // LEAF + 1:03}" for at in range(0, size, LEAF)}

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        return tuple(
            Node(
                name=name,
                state=state,
                partitions=("batch",),
                gres="gpu:h100:8",
                reason="" if "+" not in state else "fan",
            )
            for name, state in self.state.items()
        )

    def all_jobs(self, *, exclusions_of: Callable[[Job], bool] = lambda job: True) -> tuple[Job, ...]:
        size = int(len(self.names) * 0.93)
        found, at, job_id = [], 0, 100
        for share in (0.6, 0.2, 0.1, 0.06, 0.04):
            width = max(1, int(size * share))
            nodes = ",".join(self.names[at : at + width])
            found.append(
                Job(job_id=job_id, name="pretrain", user="anna", state="RUNNING", partition="batch", nodes=nodes)
            )
            at, job_id = at + width, job_id + 1
        return tuple(found)


def wiring(fleet: Fleet) -> Wiring:
    leaves = [
        Leaf(name=f"leaf{at // LEAF + 1:03}", nodes=tuple(fleet.names[at : at + LEAF]), rails=(0,) * 8)
        for at in range(0, len(fleet.names), LEAF)
    ]
    per_pod = POD // LEAF
    pods = [
        Pod(name=f"pod{at // per_pod + 1}", leaves=tuple(leaves[at : at + per_pod]))
        for at in range(0, len(leaves), per_pod)
    ]
    return Wiring(pods=tuple(pods), source="fabric.txt")


def journal_of(fleet: Fleet, file: Path) -> None:
    journal = Journal(file)
    journal.take_lease("benchmark", now=time.time(), patience_s=1.0)
    records = {
        name: NodeRecord(name=name, state=NodeState.PROBATION, since=time.time() - 7200, why="verified and resumed")
        for name in fleet.names[40::500]
    }
    journal.save(Memory(at=time.time(), nodes=records))
    rows = [(f"node:{name}", "OK -> PROBATION", "verified and resumed", "") for name in records]
    journal.tell(rows, now=time.time() - 600)
    journal.close()


@contextmanager
def served(fleet: Fleet, folder: Path) -> Iterator[tuple[Watch, str]]:
    journal_of(fleet, folder / "journal.sqlite")
    policy = Policy(guarantee={"batch": Guarantee(nodes=int(len(fleet.names) * 0.95), failure_buffer=16)})
    wires = wiring(fleet)
    watch = Watch(fleet, folder / "journal.sqlite", policy, every_s=3600.0, wiring=lambda: wires)  # type: ignore[arg-type]
    doors = Doors()
    socket = listen("127.0.0.1", 0)
    serving = Serving(watch=watch, doors=doors, listening="127.0.0.1", allow_actions=False)
    server = Server(serving)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    watch.run(serving.seen, lambda: True)
    while not watch.facts.at:
        time.sleep(0.05)
    try:
        yield watch, f"http://127.0.0.1:{socket.getsockname()[1]}/#token={doors.token}"
    finally:
        watch.stop()
        server.should_exit = True
        thread.join(timeout=10)


def taken(page: Page, key: str) -> float:
    page.wait_for_function("key => document.documentElement.dataset[key]", arg=key, timeout=60_000)
    # Taken away, so that the next figure is not waited for in vain when it happens to be the same.
    text = page.evaluate("key => [document.documentElement.dataset].map((d) => [d[key], delete d[key]][0])[0]", key)
    return float(text)


def measure(size: int, *, changes_wanted: int, shots: Path | None) -> dict[str, float]:
    fleet = Fleet(size)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="tm-page-") as name, served(fleet, Path(name)) as (watch, url):
        begun = time.process_time()
        facts = watch.again()
        found["look_cpu_ms"] = 1000 * (time.process_time() - begun)
        found["whole_kb"] = len(json.dumps(changes.whole(facts))) / 1000
        victim = fleet.names[3]
        one = replace(facts, nodes={**facts.nodes, victim: replace(facts.nodes[victim], slurm="DOWN*")})
        found["change_kb"] = len(json.dumps(changes.between(facts, one))) / 1000
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            context = browser.new_context(viewport={"width": 1440, "height": 900}, device_scale_factor=1)
            page = context.new_page()
            page.goto(url)
            taken(page, "painted")
            paints, cold = [], []
            for _ in range(5):
                page.reload()
                paints.append(taken(page, "painted"))
                # A browser that has never been here, and has nothing kept.
                with browser.new_context(viewport={"width": 1440, "height": 900}) as stranger:
                    new = stranger.new_page()
                    new.goto(url)
                    cold.append(taken(new, "painted"))
            took = []
            for turn in range(changes_wanted):
                fleet.state[fleet.names[turn * 7]] = "DOWN*"
                watch.hurry()
                took.append(taken(page, "changed"))
            found["first_paint_ms"] = statistics.median(paints)
            found["first_paint_worst_ms"] = max(paints)
            found["first_visit_ms"] = statistics.median(cold)
            found["change_ms"] = statistics.median(took)
            found["change_worst_ms"] = max(took)
            if shots is not None:
                shots.mkdir(parents=True, exist_ok=True)
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                    page.wait_for_timeout(200)
                    page.screenshot(path=shots / f"fleet-{size}-{scheme}.png", full_page=True)
            browser.close()
    return {key: round(value, 1) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shots", type=Path, default=None, metavar="FOLDER")
    args = parser.parse_args()
    figures: dict[str, float] = {}
    for size in (2048,) if args.quick else (512, 2048, 8192):
        found = measure(size, changes_wanted=10 if args.quick else 30, shots=args.shots)
        print(f"{size} nodes: {found}", file=sys.stderr)
        figures |= {f"nodes{size}_{key}": value for key, value in found.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
