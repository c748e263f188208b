"""slurmdbd on a MariaDB of the lab's own: private folder, private socket, no TCP."""

import socket
import subprocess
from collections.abc import Callable, Mapping

from trainmaster import templates
from trainmaster.errors import LabError, SlurmError
from trainmaster.lab import daemons
from trainmaster.lab.config import Site
from trainmaster.lab.state import ProcessRecord
from trainmaster.slurm.run import run

_INSTALL_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 60.0
ACCOUNT = "lab"
"""The one account; the user who starts the lab is in it."""


def slurmdbd_conf(site: Site) -> str:
    """The text of slurmdbd.conf."""
    return templates.render("lab-slurmdbd.conf", site=site)


def prepare(site: Site, *, env: Mapping[str, str]) -> None:
    """Make MariaDB's data folder, which nobody else can enter."""
    folder = site.folder / "mariadb"
    folder.mkdir(mode=0o700)
    argv = ["mariadb-install-db", "--no-defaults", f"--datadir={folder / 'data'}", f"--user={site.user}"]
    # "normal": root without a password. The folder, not the password, keeps others out.
    argv += ["--auth-root-authentication-method=normal", "--skip-test-db"]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env={**env, "TMPDIR": "/tmp"},
        timeout=_INSTALL_TIMEOUT_S,
        # Like every daemon of the lab: in the starter's session it could be taken for something else of it.
        start_new_session=True,
    )
    if done.returncode != 0:
        raise LabError(
            f"mariadb-install-db ended with {done.returncode}; it said:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


def start(site: Site, *, env: Mapping[str, str], keep: Callable[[ProcessRecord], None]) -> None:
    """Start MariaDB and slurmdbd and register the cluster, the account and this user.

    Args:
        site: the lab.
        env: the daemons' environment.
        keep: remembers each process as the lab's as soon as it runs.
    """
    folder, logs = site.folder / "mariadb", site.folder / "log"
    # Of a database that ended without a chance to remove it.
    (folder / "socket").unlink(missing_ok=True)
    database = daemons.start(
        [
            "mariadbd",
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            f"--socket={folder / 'socket'}",
            f"--pid-file={folder / 'pid'}",
            f"--user={site.user}",
            "--skip-networking",
            # A lab is thrown away: nothing in it needs to survive a power cut.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            # slurmdbd asks for it; its own change of schema may wait that long for a lock.
            "--innodb-lock-wait-timeout=900",
        ],
        role="mariadbd",
        node=None,
        env=env,
        output=logs / "mariadbd.out",
        cwd=folder,
    )
    keep(database)
    ready = (folder / "socket").exists
    daemons.await_ready(database, ready, output=logs / "mariadbd.out", timeout_s=_START_TIMEOUT_S)
    slurmdbd = daemons.start(
        ["slurmdbd", "-D"],
        role="slurmdbd",
        node=None,
        # slurmdbd.conf has no key for MariaDB's socket; the client library reads this.
        env={**env, "MYSQL_UNIX_PORT": str(folder / "socket")},
        output=logs / "slurmdbd.out",
        cwd=logs,
    )
    keep(slurmdbd)
    client_env = {**env, "SLURM_CONF": str(site.conf)}
    daemons.await_ready(slurmdbd, lambda: _listens(site), output=logs / "slurmdbd.out", timeout_s=_START_TIMEOUT_S)
    for what in (
        ["cluster", site.cluster],
        ["account", ACCOUNT, f"cluster={site.cluster}", "description=lab", "organization=lab"],
        ["user", site.user, f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}", "adminlevel=admin"],
    ):
        _register(client_env, what)


def _listens(site: Site) -> bool:
    # Not asked with sacctmgr, which sits out ten seconds when it comes too early.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        return client.connect_ex((site.address, site.dbd_port)) == 0


def _register(env: Mapping[str, str], what: list[str]) -> None:
    try:
        run(["sacctmgr", "--immediate", "add", *what], env=env)
    except SlurmError as error:
        # slurmdbd makes an administrator of root by itself.
        if "Nothing new added" not in error.message and "already exists" not in error.message:
            raise
