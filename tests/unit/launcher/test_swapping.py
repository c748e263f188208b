"""Wishes that a running job leave nodes: which are granted, and how they are written and read."""

from dataclasses import replace
from pathlib import Path

import pytest

from trainmaster.launcher import swap_request
from trainmaster.launcher.exit_rules import EXIT_REQUEUE
from trainmaster.launcher.follow.swap import Answer, answer_to
from trainmaster.launcher.record import Event
from trainmaster.launcher.supervise.budget import Budget
from trainmaster.launcher.supervise.decide import Action
from trainmaster.launcher.supervise.exchange import planned
from trainmaster.launcher.supervise.exclusions import recall
from trainmaster.launcher.supervise.slurm_side import maintenance_of
from trainmaster.launcher.supervise.swapping import refusal
from trainmaster.launcher.supervise.symptom import Outcome, RankExit
from trainmaster.launcher.swap_request import Reader, SwapRequest
from trainmaster.slurm.values import Job, Reservation

WISH = SwapRequest(id="a", nodes=("n2",), attempt=0)


def why_not(wish: SwapRequest, *, spare: tuple[str, ...] = ("n4",), roles: bool = False) -> str:
    used, idle = ("n1", "n2", "n3"), ("n5",)
    return refusal(wish, attempt=0, now=100.0, used=used, spare=spare, idle=idle, home="n1", roles=roles)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"nodes": ("n4",)}, ""),  # a spare goes: nobody has to take over
        ({"nodes": ("n5",)}, ""),  # one that was left out before is only given back
        ({"nodes": ("n2", "n5")}, ""),
        ({"nodes": ("n2", "n4")}, "0 spare(s)"),  # the spare cannot take over and go as well
        ({"nodes": ("n2", "n3")}, "2 node(s) run ranks, and 1 spare(s)"),
        ({"nodes": ("n1",)}, "batch script"),
        ({"nodes": ("n9",)}, "does not have n9"),
        ({"attempt": 1}, "attempt 1"),
        ({"until": 99.0}, "too late"),
        ({"until": 101.0}, ""),
    ],
)
def test_which_wishes_are_granted(changes: dict[str, object], said: str) -> None:
    found = why_not(replace(WISH, **changes))  # type: ignore[arg-type]
    assert (said in found) if said else found == ""


def test_a_job_of_several_roles_stays_whole() -> None:
    assert "roles" in why_not(WISH, roles=True)


def test_each_wish_is_read_once_and_a_torn_line_when_it_is_whole(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert reader.fresh() == []
    first = swap_request.leave(tmp_path, ["n2", "n2"], attempt=3, reason="a bad fan", until=7.0)
    assert reader.fresh() == [first] and first.nodes == ("n2",)
    with (tmp_path / swap_request.FILE).open("a") as stream:
        stream.write('{"id": "b", "nodes": ["n3"]')
    assert reader.fresh() == []
    with (tmp_path / swap_request.FILE).open("a") as stream:
        stream.write(', "attempt": 3}\nrubbish\n')
    assert [one.id for one in reader.fresh()] == ["b"]
    assert reader.fresh() == []


def test_nodes_left_for_maintenance_are_not_left_out_later() -> None:
    exits = tuple(RankExit(rank=rank, node=f"n{rank}", code=EXIT_REQUEUE, epoch_s=1.0) for rank in range(2))
    outcome = Outcome(world_size=2, exits=exits)
    decision = planned(outcome, ("n1",), Budget(), healthy=3, wanted=2, cause="maintenance")
    assert decision is not None and decision.budget == Budget()
    assert (decision.action, decision.cause) == (Action.RESTART, "maintenance")
    assert decision.exclude == decision.doubtful == ("n1",)
    told = Event(epoch_s=1.0, job_id=1, attempt=0, cycle=0, state="RESTARTING", cause=decision.cause, dead=("n1",))
    assert recall([told], now=2.0, ttl_s=60.0)  # a slow node would be
    assert recall([replace(told, detail={"doubtful": ["n1"]})], now=2.0, ttl_s=60.0) == ()


def test_the_last_word_on_a_wish_counts() -> None:
    def told(request_id: str, answer: str, **more: object) -> Event:
        detail = {"id": request_id, "answer": answer, "why_not": "", **more}
        return Event(epoch_s=1.0, job_id=1, attempt=0, cycle=0, state="SWAP", detail=detail)

    events = [told("a", "accepted"), told("b", "refused", why_not="no"), told("a", "swapped", given_back=True)]
    assert answer_to(events, "a") == Answer(answer="swapped", given_back=True)
    assert answer_to(events[:1], "a") == Answer(answer="accepted")
    assert answer_to(events, "c") is None


class _Reserved:
    def __init__(self, *reservations: Reservation) -> None:
        self._found = reservations

    def reservations(self) -> tuple[Reservation, ...]:
        return self._found

    def hostnames(self, names: str) -> tuple[str, ...]:
        return tuple(names.split(","))


@pytest.mark.parametrize(
    ("starts", "flags", "found"),
    [
        (50.0, ("MAINT",), (True, {"n2"})),
        (200.0, ("MAINT",), (True, set())),  # it only comes, and nobody need leave now
        (50.0, (), (False, set())),
        (50.0 + 2 * 86400.0, ("MAINT",), (False, set())),
    ],
)
def test_which_nodes_are_in_maintenance_now(starts: float, flags: tuple[str, ...], found: object) -> None:
    one = Reservation(name="r", nodes="n2,n9", start_time=starts, end_time=1e6, flags=flags)
    client = _Reserved(one)
    assert maintenance_of(Job(job_id=1, nodes="n1,n2"), client, now=100.0) == found  # type: ignore[arg-type]
