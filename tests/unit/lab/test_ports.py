"""Ports that are free, outside the kernel's own range, and kept until they are used."""

import socket

import pytest

from trainmaster.errors import LabError
from trainmaster.lab.ports import HeldPorts, candidates, ephemeral_range, hold_free


def test_no_port_is_the_kernels_or_another_labs() -> None:
    found = list(candidates((20_000, 30_000), {40_000}, start=35_000))
    assert found[0] == 35_000
    assert not {20_000, 25_000, 30_000, 40_000} & set(found)
    assert {10_000, 19_999, 30_001, 64_999} <= set(found)


def test_held_ports_are_taken_for_everybody_else() -> None:
    ours, theirs = HeldPorts(), HeldPorts()
    low, high = ephemeral_range()
    try:
        first = hold_free(3, taken=(), start=15_000, held=ours)
        second = hold_free(3, taken=(), start=15_000, held=theirs)
        assert not set(first) & set(second)
        assert not any(low <= port <= high for port in first)
        ours.release(first[0])
        with socket.socket() as daemon:
            daemon.bind(("127.0.0.1", first[0]))
    finally:
        ours.release_all()
        theirs.release_all()


def test_a_port_on_which_something_listens_is_not_free() -> None:
    held = HeldPorts()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not held.hold(server.getsockname()[1])


def test_too_few_ports() -> None:
    held = HeldPorts()
    with pytest.raises(LabError, match="only 0 are free"):
        hold_free(1, taken=range(10_000, 65_000), start=15_000, held=held)
