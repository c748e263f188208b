"""Who is where: what the roles here want of trainmaster's registry."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from messages import Peer, Server, Service

from trainmaster import registry


@contextmanager
def peers(role: str) -> Iterator[list[Peer]]:
    """A client for each replica of a role, in index order. Each connects when it is first asked something."""
    clients = [Peer(f"{role} {index}", _finder(role, index)) for index in range(registry.size(role))]
    yield clients
    for client in clients:
        client.close()


def serve(service: Service) -> None:
    """Tell the others where this replica is, and answer them until the job is over."""
    me = registry.me()
    server = Server(f"{me.role} {me.index}", service)
    registry.register(server.port)
    print(f"{me.role} {me.index} of {me.size} answers on port {server.port}", flush=True)
    server.serve_forever()


def _finder(role: str, index: int) -> Callable[[], tuple[str, int]]:
    # Waits until the replica lives: a dead one's address is withdrawn, its successor's takes the place.
    return lambda: registry.address(role, index)
