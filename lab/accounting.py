"""slurmdbd on a MariaDB of the lab's own: private folder, private socket, no TCP."""

from collections.abc import Callable
from pathlib import Path

from trainmaster.lab.config import Site
from trainmaster.lab.state import ProcessRecord


def prepare(site: Site) -> None:
    raise NotImplementedError


def start(
    folder: Path, *, env: dict[str, str], user_env: dict[str, str], cluster: str, keep: Callable[[ProcessRecord], None]
) -> None:
    raise NotImplementedError
