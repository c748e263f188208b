"""What replicas say and find."""

import threading
from pathlib import Path

import pytest

from trainmaster.errors import RegistryError, RegistryTimeout
from trainmaster.launcher.roles import registry
from trainmaster.launcher.roles.registry import Address, Entry, RoleView, View


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    values = {"": "trainer", "_INDEX": "1", "_SIZE": "2"}
    for name, value in values.items():
        monkeypatch.setenv(f"TRAINMASTER_ROLE{name}", value)
    monkeypatch.setenv("TRAINMASTER_GENERATION", "1")
    monkeypatch.setenv("TRAINMASTER_CYCLE", "3")
    monkeypatch.setenv("TRAINMASTER_REGISTRY", str(tmp_path / registry.FILE))
    monkeypatch.setenv("TRAINMASTER_REGISTER_FILE", str(tmp_path / "mine.json"))
    return tmp_path


def entry(port: int) -> Entry:
    return Entry(host="10.0.0.1", port=port, node="hm01", attempt=0, cycle=0, generation=1)


def view(*ports: int, generation: int = 1) -> View:
    replicas = {index: entry(port) for index, port in enumerate(ports)}
    return View(attempt=0, generation=generation, roles={"ps": RoleView(size=2, replicas=replicas)})


def test_a_replica_knows_who_it_is(job: Path) -> None:
    me = registry.me()
    assert (me.role, me.index, me.size, me.cycle, me.generation) == ("trainer", 1, 2, 3, 1)


def test_outside_of_a_role_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINMASTER_ROLE", raising=False)
    with pytest.raises(RegistryError, match="TRAINMASTER_ROLE is not set"):
        registry.me()


def test_addresses_come_in_order_once_all_are_there(job: Path) -> None:
    registry.publish(job, view(7000))
    assert registry.address("ps", 0, timeout_s=0) == ("10.0.0.1", 7000)
    assert registry.lookup("ps", 1) is None
    later = threading.Timer(0.2, registry.publish, (job, view(7000, 7001)))
    later.start()
    assert registry.addresses("ps", timeout_s=30) == (Address("10.0.0.1", 7000), Address("10.0.0.1", 7001))
    later.join()


def test_a_timeout_says_what_was_waited_for_and_what_was_there(job: Path) -> None:
    registry.publish(job, view(7000))
    with pytest.raises(RegistryTimeout) as raised:
        registry.addresses("ps", timeout_s=0.1)
    assert raised.value.message == (
        "waited 0.1 s for 'ps' to register replica 1; in generation 1 1 of 2 replicas of 'ps' are registered"
    )


def test_a_role_or_replica_that_cannot_be_is_no_reason_to_wait(job: Path) -> None:
    registry.publish(job, view())
    with pytest.raises(RegistryError, match="has no role 'pss'; it has ps"):
        registry.address("pss", 0)
    with pytest.raises(RegistryError, match="has the replicas 0 to 1, not 2"):
        registry.address("ps", 2)


def test_the_generation_is_the_jobs_and_never_older_than_ones_own(job: Path) -> None:
    assert registry.generation() == 1
    registry.publish(job, view(generation=4))
    assert registry.generation() == 4
    registry.publish(job, view(generation=0))
    assert registry.generation() == 1


def test_registering_leaves_one_whole_file_for_the_agent(job: Path) -> None:
    registry.register(7005)
    assert (job / "mine.json").read_text() == '{"port": 7005, "host": ""}'
    with pytest.raises(RegistryError, match="70000"):
        registry.register(70000)


def test_the_file_says_what_was_published(job: Path) -> None:
    assert registry.decode(registry.encode(view(1, 2))) == view(1, 2)


def test_a_torn_or_missing_file_is_waited_out(job: Path) -> None:
    (job / registry.FILE).write_text('{"attempt": 0, ')
    with pytest.raises(RegistryTimeout, match="could not be read"):
        registry.address("ps", 0, timeout_s=0.1)


def test_a_program_of_any_language_can_use_the_command(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["register", "7006"]) == 0
    registry.publish(job, view(7000))
    assert registry.main(["address", "ps", "0"]) == 0
    assert capsys.readouterr().out == "10.0.0.1:7000\n"
    assert registry.main([]) == 2
