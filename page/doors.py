"""Who may come in, and who it is that asks: a token, sessions, and the owner of a connection on this machine.

The token is given out once, after the `#` of an address: browsers never send that part, so it stands in no log. The
page exchanges it for a cookie that scripts cannot read, and takes it out of the address.
"""

import hmac
import ipaddress
import pwd
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SESSIONS_MAX = 256


@dataclass(slots=True)
class Doors:
    """Sessions of those who have shown the token."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _sessions: dict[str, str] = field(default_factory=dict)
    """By session, the word that each of its requests to change something has to carry."""

    def enter(self, token: str) -> tuple[str, str] | None:
        """A new session and its word; None for a wrong token."""
        if not self.fits(token):
            return None
        while len(self._sessions) >= SESSIONS_MAX:
            self._sessions.pop(next(iter(self._sessions)))
        session, word = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._sessions[session] = word
        return session, word

    def fits(self, token: str) -> bool:
        """Whether it is the token; takes as long for any wrong one."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def word_of(self, session: str) -> str | None:
        """The word of a session; None when there is no such session."""
        return self._sessions.get(session)


def host_is_ours(host: str, listening: str) -> bool:
    """Whether a request's Host names us: a foreign name that was pointed at this machine does not (DNS rebinding).

    >>> [host_is_ours(host, "127.0.0.1") for host in ("127.0.0.1:9320", "localhost:9320", "[::1]:9320", "evil.example")]
    [True, True, True, False]
    """
    name = host.rpartition(":")[0] if host.count(":") == 1 or "]:" in host else host
    name = name.strip("[]").lower()
    return name in {"localhost", "127.0.0.1", "::1", listening.strip("[]").lower()}


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def owner_of(port: int, *, towards: int, tables: Iterable[Path] = ()) -> str:
    """The user whose process holds the other end of a connection on this machine; "" when it cannot be told.

    Of a browser behind `ssh -L` that is the one who has logged in. The kernel tells it (proc(5), /proc/net/tcp), so
    nobody can say that they are somebody else.

    Args:
        port: The other end's.
        towards: Our own.
        tables: Instead of the kernel's.
    """
    for table in tables or (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if _port(words[1]) == port and _port(words[2]) == towards:
                try:
                    return pwd.getpwuid(int(words[7])).pw_name
                except KeyError:
                    return f"uid {words[7]}"
    return ""


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
