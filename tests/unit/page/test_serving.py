"""The server, over real HTTP: who is let in, what is told, what is refused."""

import base64
import hashlib
import json
import os
import pwd
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainmaster.controller.journal import Journal
from trainmaster.controller.maintenance.state import Maintenance, Train
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.errors import SlurmUnreachable, UsageError
from trainmaster.page import daemon
from trainmaster.page.doors import Doors, host_is_ours, is_loopback, owner_of
from trainmaster.page.facts import Wiring
from trainmaster.page.serving import COOKIE, Server, Serving, listen
from trainmaster.page.watching import Watch
from trainmaster.slurm.values import Job, Node


class Slurm:
    """As much of it as the page asks for."""

    def __init__(self) -> None:
        self.state = {"n1": "IDLE", "n2": "IDLE"}
        self.silent = False

    def leaves(self) -> dict[str, str]:
        return {}

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        if self.silent:
            raise SlurmUnreachable("slurmctld did not answer")
        return tuple(Node(name=name, state=state, partitions=("batch",)) for name, state in self.state.items())

    def all_jobs(self, *, exclusions_of: Callable[[Job], bool] = lambda job: True) -> tuple[Job, ...]:
        return ()


@dataclass
class Site:
    port: int
    token: str
    slurm: Slurm
    watch: Watch
    journal: Path

    def ask(self, path: str, *, body: Any = None, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        data = json.dumps(body).encode() if body is not None else None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=named)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text, found = answer.read(), dict(answer.headers)
                return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else {}, found
        except urllib.error.HTTPError as error:
            return error.code, {}, dict(error.headers)

    def enter(self) -> dict[str, str]:
        """Headers of somebody who was let in."""
        status, said, headers = self.ask("/api/enter", body={"token": self.token})
        assert status == 200
        return {"cookie": headers["set-cookie"].split(";")[0], "x_trainmaster_word": said["word"]}


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    file = tmp_path / "journal.sqlite"
    journal = Journal(file)
    journal.take_lease("test", now=time.time(), patience_s=1.0)
    train = Train(name="spring", operations=("a",), started_at=time.time(), cycle_s=1e6, domain=1, by="ann")
    journal.save(Memory(at=time.time(), maintenance=Maintenance(trains={"spring": train})))
    journal.tell([("node:n1", "drain proposed", "flap", "")], now=time.time())
    journal.close()
    slurm = Slurm()
    watch = Watch(slurm, file, Policy(), every_s=0.1)  # type: ignore[arg-type]
    opened = listen("127.0.0.1", 0)
    doors = Doors()
    serving = Serving(watch=watch, doors=doors, listening="127.0.0.1", allow_actions=getattr(request, "param", False))
    server = Server(serving)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    looks = watch.run(serving.seen, lambda: True)
    until(lambda: server.started and watch.facts.at > 0)
    yield Site(port=opened.getsockname()[1], token=doors.token, slurm=slurm, watch=watch, journal=file)
    watch.stop()
    server.should_exit = True
    looks.join(timeout=20)
    thread.join(timeout=20)
    opened.close()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/api/facts", "/api/events", "/api/node/n1", "/api/job/1", "/api/session"])
def test_nothing_is_told_without_the_token(site: Site, path: str) -> None:
    assert site.ask(path)[0] == 401
    assert site.ask(path, cookie=f"{COOKIE}=guessed")[0] == 401
    assert site.ask(path, authorization="Bearer guessed")[0] == 401


def test_the_token_opens_by_a_session_that_scripts_cannot_read(site: Site) -> None:
    assert site.ask("/api/enter", body={"token": "wrong"})[0] == 401
    status, _, headers = site.ask("/api/enter", body={"token": site.token})
    cookie = headers["set-cookie"].lower()
    assert status == 200 and "httponly" in cookie and "samesite=strict" in cookie and site.token.lower() not in cookie
    status, facts, headers = site.ask("/api/facts", **site.enter())
    assert status == 200 and facts["nodes"]["n1"]["look"] == "free" and facts["feed"][0]["why"] == "flap"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert site.ask("/api/facts", authorization=f"Bearer {site.token}")[0] == 200


def test_what_a_browser_may_keep_is_named_after_what_is_in_it(site: Site) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/", timeout=20) as answer:
        text, policy = answer.read().decode(), answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
    # The style that stands in the document is the one that the policy lets in; nothing else inline is.
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in policy and "unsafe-inline" not in policy
    (app,) = re.findall(r'<script type="module" src="(/static/\w+/app.js)">', text)
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}{app}", timeout=20) as answer:
        assert "immutable" in answer.headers["cache-control"] and b"import" in answer.read()
    assert site.ask(app.replace(app.split("/")[2], "0" * 12))[0] == 404
    assert site.ask(app.replace("app.js", "..%2fserving.py"))[0] == 404


def test_another_sites_name_for_this_machine_is_turned_away(site: Site) -> None:
    assert site.ask("/", host="evil.example")[0] == 421
    assert site.ask("/", host=f"localhost:{site.port}")[0] == 200
    assert site.ask("/api/enter", body={"token": site.token}, origin="http://evil.example")[0] == 403


def test_a_change_reaches_a_browser_that_listens(site: Site) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{site.port}/api/events", headers={"cookie": site.enter()["cookie"]}
    )
    with urllib.request.urlopen(request, timeout=30) as stream:
        assert next(iter(stream)) == b"event: whole\n"
        site.slurm.state["n2"] = "DOWN*"
        for line in stream:
            if line.startswith(b"data: ") and b'"nodes":{"n2"' in line:
                break
    assert json.loads(line[6:])["nodes"]["n2"]["look"] == "down"


def test_when_slurm_does_not_answer_the_page_says_since_when(site: Site) -> None:
    at = site.watch.facts.at
    site.slurm.silent = True
    until(lambda: site.watch.facts.trouble)
    facts = site.ask("/api/facts", **site.enter())[1]
    assert facts["trouble"] == "slurmctld did not answer" and facts["nodes"]["n1"]["look"] == "free"
    frozen = site.watch.facts.at
    assert frozen >= at
    time.sleep(0.5)
    assert site.watch.facts.at == frozen
    site.slurm.silent = False
    until(lambda: site.watch.facts.at > frozen and not site.watch.facts.trouble)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_page_whose_looks_have_broken_down_ends_rather_than_looks_alive(tmp_path: Path) -> None:
    def fabric() -> Wiring:
        raise RuntimeError("a mistake of ours")

    watch = Watch(Slurm(), tmp_path / "journal.sqlite", Policy(), every_s=0.1, wiring=fabric)  # type: ignore[arg-type]
    ended = threading.Event()
    watch.run(lambda old, new: None, lambda: True, ended.set).join(timeout=20)
    assert ended.is_set() and watch.broken


def test_a_page_that_only_shows_does_nothing(site: Site) -> None:
    assert site.ask("/api/act", body={"verb": "release", "target": "n1"}, **site.enter())[0] == 403


def requests(site: Site) -> list[tuple[str, str, str]]:
    journal = Journal(site.journal, read_only=True)
    try:
        return [(one.verb, one.target, one.by) for one in journal.requests()]
    finally:
        journal.close()


@pytest.mark.parametrize("site", [True], indirect=True)
def test_what_is_asked_for_is_recorded_with_the_user_who_holds_the_connection(site: Site) -> None:
    allowed = site.enter()
    assert site.ask("/api/act", body={"verb": "release", "target": "n1", "why": "new fan"}, **allowed)[0] == 200
    assert site.ask("/api/act", body={"verb": "pause", "target": "spring"}, **allowed)[0] == 200
    me = pwd.getpwuid(os.getuid()).pw_name
    assert requests(site) == [("release", "n1", f"{me} (page)"), ("train", "spring", f"{me} (page)")]


@pytest.mark.parametrize("site", [True], indirect=True)
def test_another_page_cannot_ask_in_a_browsers_name(site: Site) -> None:
    body, allowed = {"verb": "release", "target": "n1"}, site.enter()
    assert site.ask("/api/act", body=body, cookie=allowed["cookie"])[0] == 403
    assert site.ask("/api/act", body=body, **allowed, origin="http://evil.example")[0] == 403
    assert site.ask("/api/act", body=body, **(allowed | {"x_trainmaster_word": "guessed"}))[0] == 403
    assert site.ask("/api/act", body=body, authorization=f"Bearer {site.token}")[0] == 403
    for wrong in (
        {"verb": "drain", "target": "n1"},
        {"verb": "release", "target": "n9"},
        {"verb": "pause", "target": "x"},
    ):
        assert site.ask("/api/act", body=wrong, **allowed)[0] == 409
    assert requests(site) == []


def test_the_owner_of_a_connection_is_the_kernels_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        ours, theirs = server.getsockname()[1], client.getsockname()[1]
        assert owner_of(theirs, towards=ours) == pwd.getpwuid(os.getuid()).pw_name
    assert owner_of(1, towards=2) == ""


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = daemon._doors(file)
    assert file.stat().st_mode & 0o777 == 0o600 and daemon._doors(file).token == made.token
    file.chmod(0o644)
    with pytest.raises(UsageError, match="others may read"):
        daemon._doors(file)


def test_only_loopback_is_loopback() -> None:
    assert [is_loopback(one) for one in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "host")] == [True] * 3 + [
        False
    ] * 2
    assert host_is_ours("10.1.2.3:80", "10.1.2.3") and not host_is_ours("10.1.2.3.evil.example", "10.1.2.3")
