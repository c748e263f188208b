"""Asks this machine's own InfiniBand: ibnetdiscover and ibqueryerrors. The only module here that starts anything."""

import os
import subprocess
from collections.abc import Sequence

from trainmaster.errors import FabricError

# 49,000 adapters, the most that a subnet can have, take a minute or two on a real fabric.
_TIMEOUT_S = 900.0


def ibnetdiscover(adapters: Sequence[str] = ()) -> tuple[str, ...]:
    """The output of ibnetdiscover, once, or once for each adapter (mlx5_0, mlx5_1:2), which may be in different planes.

    Raises:
        FabricError: it is not installed, may not be run, or fails.
    """
    return tuple(_run("ibnetdiscover", adapter) for adapter in adapters or ("",))


def ibqueryerrors(adapters: Sequence[str] = ()) -> tuple[str, ...]:
    """The error counters of all ports, as for `ibnetdiscover`; it needs a subnet manager."""
    # It ends with 1 when it has found errors.
    return tuple(_run("ibqueryerrors", adapter, fine=(0, 1)) for adapter in adapters or ("",))


def _run(tool: str, adapter: str, *, fine: Sequence[int] = (0,)) -> str:
    device, _, port = adapter.partition(":")
    options = (["-C", device] if device else []) + (["-P", port] if port else [])
    try:
        done = subprocess.run(
            [tool, *options],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
        )
    except FileNotFoundError:
        raise FabricError(
            f"{tool} is not on this machine",
            hint="install infiniband-diags, or save its output elsewhere and name the file "
            + ("with --from" if tool == "ibnetdiscover" else "with --counters"),
        ) from None
    except subprocess.TimeoutExpired:
        raise FabricError(f"{tool} did not end within {_TIMEOUT_S:g} s") from None
    if done.returncode not in fine or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise FabricError(
            f"{tool}{''.join(f' {word}' for word in options)} failed and said: {last}",
            hint="it needs root and an adapter whose link is up: see ibstat",
        )
    return done.stdout
