"""The plan of a lab's network: names that fit, addresses that clash with nothing."""

import ipaddress
from pathlib import Path

import pytest

from trainmaster.errors import LabError
from trainmaster.lab import netns

FOLDER = Path("/labs/a")


def test_names_fit_into_an_interface_name() -> None:
    network = netns.plan("abc123", [f"n{number}" for number in range(1, 1022)], folder=FOLDER)
    assert max(len(cable.link) for cable in network.cables) <= 15
    assert len(network.bridge) <= 15
    everything = [network.address, *(cable.address for cable in network.cables)]
    assert len(set(everything)) == len(everything) == 1022
    assert all(ipaddress.IPv4Address(address) in netns.TEST_RANGE for address in everything)


def test_too_many_nodes_are_refused() -> None:
    with pytest.raises(LabError, match="do not fit"):
        netns.plan("abc123", [f"n{number}" for number in range(1022)], folder=FOLDER)


def test_a_range_in_use_is_passed_over() -> None:
    taken = [ipaddress.IPv4Network("198.18.0.7/32"), ipaddress.IPv4Network("198.18.4.0/22")]
    assert netns.plan("abc123", ["n1"], folder=FOLDER, taken=taken).address == "198.18.8.1"


def test_a_full_machine_is_an_error() -> None:
    with pytest.raises(LabError, match="in use"):
        netns.plan("abc123", ["n1"], folder=FOLDER, taken=[netns.TEST_RANGE])


def test_it_comes_back_from_json() -> None:
    network = netns.plan("abc123", ["n1", "n2"], folder=FOLDER)
    assert netns.from_json(network.as_json()) == network


def test_a_node_without_a_cable_is_an_error() -> None:
    with pytest.raises(LabError, match="no cable"):
        netns.plan("abc123", ["n1"], folder=FOLDER).cable("n2")


def test_the_command_starts_the_node_in_its_namespaces() -> None:
    prefix = netns.plan("abc123", ["n1"], folder=FOLDER).command_prefix("n1")
    assert prefix[:2] == ("nsenter", "--net=/run/netns/tmabc123-0")
    assert prefix[-2:] == ("n1", "/labs/a/hosts")


def test_names_on_the_nodes_never_mean_loopback() -> None:
    network = netns.plan("abc123", ["n1", "n2"], folder=FOLDER)
    machine = "127.0.0.1 localhost vm\n::1 ip6-localhost\n192.0.2.9 n1 # an older cluster\n192.0.2.8 fileserver # n1\n"
    assert netns.hosts_text(network, host="vm", machine=machine).splitlines() == [
        "::1 ip6-localhost",
        "192.0.2.8 fileserver # n1",
        "127.0.0.1 localhost",
        "198.18.0.1 vm",
        "198.18.0.2 n1",
        "198.18.0.3 n2",
    ]
