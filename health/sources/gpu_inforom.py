"""The checksums of the GPUs' infoROM. The driver reads the chip for that: 70 ms a GPU, so not in every pass."""

from __future__ import annotations

from collections.abc import Generator

from trainmaster.health.check import Absent, Completed, Place, Source, SourceFault
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query

_FIELDS = ["index", "pci.bus_id", "inforom.checksum_validation"]


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Yields the command; returns {"gpus": [{field: text}]}."""
    program = gpu_query.tool(place)
    done = yield [program, "--query-gpu=" + ",".join(_FIELDS), "--format=csv,noheader,nounits"]
    if done.code == 2:
        raise Absent("this driver does not tell about checksums of the infoROM")
    gpus = gpu_query.rows(gpu_query.succeeded(done), _FIELDS)
    if not gpus:
        raise SourceFault("nvidia-smi ended with 0 and told of no GPU")
    return {"gpus": gpus}


SOURCE = Source(
    name="gpu.inforom.query",
    about="`nvidia-smi --query-gpu=inforom.checksum_validation`",
    ask=ask,
    deadline_s=20.0,
    set="full",
    idle=True,
)
