"""InfiniBand and RoCE adapters as /sys/class/infiniband shows them: ports, firmware, error counters."""

from __future__ import annotations

import os

from trainmaster.health import files
from trainmaster.health.check import Absent, Place, Source
from trainmaster.health.record import Any

FOLDER = "/sys/class/infiniband"
_PORT_FILES = ("state", "phys_state", "rate", "link_layer")
COUNTERS = (
    "link_downed",
    "link_error_recovery",
    "symbol_error",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
    "port_rcv_errors",
    "port_xmit_discards",
)
HW_COUNTERS = ("rnr_nak_retry_err", "local_ack_timeout_err")


def read(place: Place) -> Any:
    """{device: {"fw_ver", "node_guid", "node_desc", "pci", "ports": {number: {state, …, "counters": {…}}}}}."""
    folder = place.root + FOLDER
    devices = files.names(folder)
    if not devices and not place.profile.table("ib"):
        raise Absent("no InfiniBand adapter is here, and none is expected")
    found: dict[str, Any] = {}
    for device in devices:
        here = f"{folder}/{device}"
        facts: dict[str, Any] = {
            name: files.text(f"{here}/{name}", 256) for name in ("fw_ver", "node_guid", "node_desc")
        }
        facts["pci"] = (
            os.path.basename(os.path.realpath(f"{here}/device")) if os.path.exists(f"{here}/device") else None
        )
        facts["ports"] = {number: _port(f"{here}/ports/{number}") for number in files.names(f"{here}/ports")}
        found[device] = facts
    return found


def _port(folder: str) -> dict[str, Any]:
    facts: dict[str, Any] = {name: files.text(f"{folder}/{name}", 256) for name in _PORT_FILES}
    counters = {name: files.number(f"{folder}/counters/{name}") for name in COUNTERS}
    counters.update({name: files.number(f"{folder}/hw_counters/{name}") for name in HW_COUNTERS})
    # A counter that this adapter lacks, or that says "N/A (no PMA)", is left out.
    facts["counters"] = {name: value for name, value in counters.items() if value is not None}
    return facts


SOURCE = Source(name="ib.sysfs", about="/sys/class/infiniband/*/{fw_ver,ports/*/…}", read=read, deadline_s=10.0)
