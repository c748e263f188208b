"""What the adapters' driver (mlx5) reports in the kernel's log."""

from __future__ import annotations

import re

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import kernel_log

_ADDRESS = r"mlx5_core ([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9])"
FATAL = (
    (r"mlx5_core.*timeout\. Will cause a leak of a command resource", "a firmware command timed out"),
    (r"mlx5_core.*health compromised.*reached miss count", "health compromised"),
    (r"mlx5_core.*unrecoverable hardware error", "unrecoverable hardware error"),
)
OTHERS = (
    (r"mlx5_core.*High [Tt]emperature", "high temperature"),
    (r"mlx5_core.*ACCESS_REG.*failed", "ACCESS_REG failed"),
    (r"mlx5_core.*NETDEV WATCHDOG|NETDEV WATCHDOG.*mlx5", "transmit timed out"),
    (r"mlx5_core.*[Cc]able unplugged", "cable unplugged"),
    (r"mlx5_core.*insufficient power", "insufficient power in the slot"),
    (r"mlx5_core.*available PCIe bandwidth, limited by", "the PCIe link limits it"),
)


def after(memory: Any, records: list[list[Any]]) -> dict[str, list[str]]:
    """Fatal reports of this boot: {adapter and words: [adapter, words]}."""
    active = dict(memory) if isinstance(memory, dict) else {}
    for where, words in _matches(records, FATAL):
        active[f"{where} {words}"] = [where, words]
    return active


def _matches(records: list[list[Any]], patterns: Any) -> list[tuple[str, str]]:
    found = []
    for record in records:
        text = str(record[3])
        for pattern, words in patterns:
            if re.search(pattern, text):
                address = re.search(_ADDRESS, text)
                found.append((address[1] if address else "", words))
    return list(dict.fromkeys(found))


def judge(context: Context, value: Any) -> list[Finding]:
    """Fatal ones drain until the node boots; others are told once."""
    active = after(context.memory, value["records"])
    found = [fail(Action.DRAIN, words, subject=where) for where, words in active.values()]
    return found + [warn(words, subject=where) for where, words in _matches(value["records"], OTHERS)]


def remember(context: Context, value: Any) -> Any:
    """The fatal reports."""
    return after(context.memory, value["records"])


CHECK = Check(
    id="ib.kmsg",
    about="an InfiniBand adapter's driver reported a failure",
    sources=(kernel_log.SOURCE,),
    judge=judge,
    remember=remember,
)
