"""What saving has cost a job, as its rank 0 wrote it down, in figures and in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from trainmaster.launcher.rank import saves
from trainmaster.launcher.rank.interval import Choice, in_words


def lines_of(run_dir: Path, roles: Sequence[str] = ()) -> tuple[saves.Line, ...]:
    """All lines of a job; of a job of roles, of all its roles."""
    return tuple(line for folder in ("", *roles) for line in saves.read(run_dir / folder))


def facts_of(lines: Sequence[saves.Line]) -> dict[str, Any] | None:
    """Count, seconds and bytes of saves and of copies in memory, loads by where from, the interval that was chosen.

    None when nothing was saved or loaded.
    """
    if not lines:
        return None
    loads = [line for line in lines if line.kind == saves.LOAD]
    chosen = _last_choice(lines)
    return {
        "saves": asdict(saves.total(lines, saves.DISK)),
        "memory_copies": asdict(saves.total(lines, saves.MEMORY)),
        "loads": [
            {"step": one.step, "source": one.detail.get("source"), "took_s": one.blocked_s, "cycle": one.cycle}
            for one in loads
        ],
        "interval": None if chosen is None else asdict(chosen),
        "interval_because": None if chosen is None else in_words(chosen),
    }


def _last_choice(lines: Iterable[saves.Line]) -> Choice | None:
    known = {one.name for one in fields(Choice)}
    for line in reversed(list(lines)):
        if line.kind == saves.INTERVAL:
            try:
                return Choice(**{key: value for key, value in line.detail.items() if key in known})
            except TypeError:
                return None
    return None


def in_sentences(facts: Mapping[str, Any]) -> list[str]:
    """The same for people, a line each."""
    found = []
    disk, memory = facts["saves"], facts["memory_copies"]
    if disk["count"]:
        found.append(
            f"{disk['count']} checkpoints of {_size(disk['size_bytes'])} together: training waited"
            f" {disk['blocked_s']:.1f} s, {disk['wrote_s']:.1f} s were written beside it"
        )
    if memory["count"]:
        found.append(
            f"{memory['count']} copies in memory of {_size(memory['size_bytes'])} together: training waited"
            f" {memory['blocked_s']:.1f} s"
        )
    if facts["loads"]:
        sources = [one["source"] for one in facts["loads"]]
        last = facts["loads"][-1]
        where = "memory" if last["source"] == saves.MEMORY else "the disk"
        found.append(
            f"loads: {len(sources)}, of these from memory: {sources.count(saves.MEMORY)}; last after step"
            f" {last['step']} from {where}, loaded in {last['took_s']:.2f} s"
        )
    if facts["interval_because"]:
        found.append(facts["interval_because"])
    return found


def _size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.4g} TiB"
