"""Asks this machine's own InfiniBand for the fabric: runs ibnetdiscover. The only module here that starts anything."""

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
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    outputs = []
    for adapter in adapters or ("",):
        device, _, port = adapter.partition(":")
        options = (["-C", device] if device else []) + (["-P", port] if port else [])
        try:
            done = subprocess.run(
                ["ibnetdiscover", *options],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT_S,
                env={**os.environ, "PATH": path},
            )
        except FileNotFoundError:
            raise FabricError(
                "ibnetdiscover is not on this machine",
                hint="install infiniband-diags, or save its output elsewhere and name the file with --from",
            ) from None
        except subprocess.TimeoutExpired:
            raise FabricError(f"ibnetdiscover did not end within {_TIMEOUT_S:g} s") from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise FabricError(
                f"ibnetdiscover{''.join(f' {word}' for word in options)} failed and said: {last}",
                hint="it needs root and an adapter whose link is up: see ibstat",
            )
        outputs.append(done.stdout)
    return tuple(outputs)
