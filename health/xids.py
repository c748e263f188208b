"""What NVIDIA's Xid numbers ask for: data.

Source: NVIDIA's Xid catalogue, "immediate action" column, as of driver branch 580 (October 2025); 162 to 168 from
branch 590. A number that is in none of these is new to us, and told as a warning.
"""

from __future__ import annotations

VERSION = "r580, 2025-10"

RESET = frozenset((46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158))
"""RESET_GPU: what runs on the GPU is lost, and nothing may be started before a reset."""

REPLACE = {
    54: "auxiliary power is not connected",
    79: "fell off the bus",
    142: "contact NVIDIA's support",
    151: "key rotation failed, restart the machine",
    168: "the ECC state needs a reboot",
}
"""RESTART_BM, RESTART_VM, CHECK_MECHANICALS, CONTACT_SUPPORT: a reset of the GPU alone does not help."""

LOST = frozenset((79,))
"""The job that runs here cannot go on."""

NVLINK = frozenset((74, *range(144, 151)))
"""WORKFLOW_NVLINK: an error of a link; whether it matters, the links' own state tells."""

RESTART_APP = frozenset(
    (
        *(8, 11, 13, 25, 31, 32, 39, 40, 41, 43, 45, 48, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86),
        *(88, 89, 94, *range(96, 106), *range(126, 136), 139),
    )
)
"""The program is over and the GPU is fine. Two of these in a day from different programs are suspect, unless USER's."""

USER = frozenset((8, 13, 31, 32, 43, 45, 68, 69))
"""What a faulty program, or the killing of one, produces on a healthy GPU. Never counted against it."""

IGNORE = frozenset((37, 38, 44, 63, 66, 67, 78, 92, 93, 106, 107, 121, 137, 141, 152, 153, 157, 159, 160, 161))
IGNORE_590 = frozenset((162, 163, 164, 165))

RECOVERY = 154
"""The recovery action of a GPU has changed; the text says to what."""

NAMES = {
    31: "memory page fault",
    43: "a program was stopped",
    45: "a program's work was cleared away",
    48: "double bit ECC error",
    63: "row remapping recorded",
    64: "row remapping failed",
    74: "NVLink error",
    79: "fell off the bus",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "GSP does not answer",
    120: "GSP error",
    140: "unrecovered ECC error",
}
