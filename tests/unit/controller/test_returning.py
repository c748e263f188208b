"""Nodes come back after a probation that was spent at work; tickets are left until somebody takes them."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.control import Hands, SmallSlurm
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.memory import NodeState
from trainmaster.controller.policy import Modes, Policy, Requeue, Returning

FATAL = "[HC] gpu.present: gone"


class Site:
    def __init__(self, folder: Path, returning: Returning, requeue: Requeue | None = None, count: int = 20) -> None:
        self.clock = Hands()
        self.slurm = SmallSlurm(count, self.clock)
        self.journal = Journal(folder / "journal.sqlite", synchronous="OFF")
        policy = Policy(modes=Modes(default="act", keep="observe"), returning=returning, requeue=requeue or Requeue())
        self.controller = Controller(self.slurm, self.journal, policy, self.clock)
        self.controller.start()
        self.controller.tick()

    def tick(self, after_s: float = 10.0):
        self.clock.at += after_s
        return self.controller.tick()

    def state(self, name: str) -> NodeState:
        record = self.controller.memory.nodes.get(name)
        return record.state if record is not None else NodeState.OK

    def back_from_repair(self, name: str) -> None:
        self.journal.ask("quarantine", name, by="alice", why="noise")
        self.tick()
        self.journal.ask("release", name, by="alice", why="new fan")
        self.tick()
        self.tick()
        assert self.state(name) is NodeState.PROBATION

    def settle(self, done) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.02)
            self.tick(0.0)


def test_an_idle_node_proves_nothing_on_probation(tmp_path: Path) -> None:
    hours = 3600.0
    site = Site(tmp_path, Returning(probation_s=2 * hours, probation_busy_s=60.0, probation_max_s=20 * hours))
    for name in ("n0001", "n0002"):
        site.back_from_repair(name)
    site.slurm.start(7, "n0001")
    for _ in range(8):
        site.tick()
    site.tick(3 * hours)
    assert (site.state("n0001"), site.state("n0002")) == (NodeState.OK, NodeState.PROBATION)
    site.tick(20 * hours)
    assert site.state("n0002") is NodeState.OK, "but not for ever"


@pytest.mark.parametrize(("nodes", "excluded"), [("n[0002-0011]", {"n0001"}), ("n[0002-0005]", set())])
def test_big_jobs_do_without_nodes_on_probation(tmp_path: Path, nodes: str, excluded: set[str]) -> None:
    site = Site(tmp_path, Returning())
    site.back_from_repair("n0001")
    site.slurm.start(7, nodes)
    site.tick()
    site.slurm.die("n0003")
    site.tick()
    site.tick()
    assert set(site.controller.memory.jobs[7].ours_before) - {"n0003"} == excluded


def broken(site: Site) -> None:
    site.journal.ask("quarantine", "n0001", by="alice", why="noise")
    site.tick()
    site.tick()
    site.settle(lambda: site.state("n0001") is NodeState.REPAIR)


def test_a_ticket_that_could_not_be_left_is_left_later_and_once(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    script = f'echo "$1" >> {tries}; test $(wc -l < {tries}) -ge 3'
    site = Site(
        tmp_path, Returning(verify=("false",), ticket=("sh", "-c", script, "sh", "{id}"), ticket_again_s=(60.0, 300.0))
    )
    broken(site)

    def told() -> int:
        return len(tries.read_text().split()) if tries.exists() else 0

    def failed(count: int) -> bool:
        return site.controller.memory.nodes["n0001"].ticket_tries == count

    site.settle(lambda: failed(1))
    site.tick(59.0)
    assert told() == 1
    site.tick(1.0)
    site.settle(lambda: failed(2))
    site.tick(299.0)
    assert told() == 2
    site.tick(1.0)
    site.settle(lambda: site.controller.memory.nodes["n0001"].ticketed)
    for _ in range(3):
        site.tick(7200.0)
    assert told() == 3 and len(set(tries.read_text().split())) == 1, "one ticket, by its id"


@pytest.fixture
def desk() -> Iterator[tuple[str, list[dict[str, str]]]]:
    seen: list[dict[str, str]] = []

    class Desk(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body | {"key": self.headers["Idempotency-Key"]})
            self.send_response(503 if len(seen) == 1 else 201)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/tickets", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_ticket_goes_to_a_url(tmp_path: Path, desk: tuple[str, list[dict[str, str]]]) -> None:
    url, seen = desk
    site = Site(tmp_path, Returning(verify=("false",), ticket_url=url, ticket_again_s=(60.0,)))
    broken(site)
    site.settle(lambda: site.controller.memory.nodes["n0001"].ticket_tries == 1)
    site.tick(60.0)
    site.settle(lambda: site.controller.memory.nodes["n0001"].ticketed)
    assert [one["node"] for one in seen] == ["n0001", "n0001"]
    assert seen[0]["id"] == seen[0]["key"] == seen[1]["id"] and "verification" in seen[0]["why"]


SUBMITIT = {
    "command": f"/home/alice/logs/submission_file_{'0a' * 16}.sh",
    "std_out": "/home/alice/logs/7_0_log.out",
}


@pytest.mark.parametrize(
    ("limit_s", "command", "first"),
    [
        (3600.0, SUBMITIT["command"], "USR2 7"),
        (660.0, SUBMITIT["command"], "requeue 7"),  # it would count as a timeout
        (3600.0, "/home/alice/train.sh", "requeue 7"),  # it would die of the signal
    ],
)
def test_a_submitit_job_that_knows_nothing_of_us_is_asked_to_save(
    tmp_path: Path, limit_s: float, command: str, first: str
) -> None:
    site = Site(tmp_path, Returning())
    values = SUBMITIT | {"command": command}
    site.slurm.start(7, "n[0001-0002]", end_time=site.clock.at + limit_s, **values)
    site.tick()
    site.slurm.set("n0002", drain=FATAL)
    site.tick()
    assert site.slurm.changes == [first]


@pytest.mark.parametrize(("kind", "soon"), [("proctrack/cgroup", True), ("proctrack/linuxproc", False)])
def test_a_launchers_job_is_released_soon_where_nothing_outlives_it(tmp_path: Path, kind: str, soon: bool) -> None:
    site = Site(tmp_path, Returning())
    site.slurm.settings["ProctrackType"] = kind
    site.controller._leaf_of = None  # as at the start
    site.slurm.start(7, "n[0001-0002]", std_out="/shared/jobs/abc/batch.out")
    site.tick()
    site.slurm.back(7)
    site.tick(1.0)
    site.tick(3.0)
    assert site.slurm.changes == (["start 7"] if soon else [])
    site.tick(30.0)
    assert site.slurm.changes == ["start 7"]


def test_a_number_that_comes_round_again_is_another_job(tmp_path: Path) -> None:
    site = Site(tmp_path, Returning())
    for _ in range(2):
        site.slurm.start(7, "n[0001-0002]", restarts=0)
        site.tick(1000.0)
        site.slurm.set("n0002", drain=FATAL)
        site.tick()
        site.tick()
        site.slurm.set("n0002", drain="")
        site.slurm.known[7] = replace(site.slurm.known[7], state="COMPLETED")
        site.tick()
    assert site.slurm.changes == ["requeue 7", "start 7"] * 2
