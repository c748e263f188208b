"""What the repeats of recovery.py come to: figures, ratios, goals and tables."""

import math
from collections.abc import Iterable

from peers.table import PEERS
from rich.console import Console
from rich.table import Table

from measure import figures
from measure.figures import Figures
from measure.floor import PARTS
from measure.strike import FAULTS, MORE_FAULTS, Measured

GOALS: dict[str, dict[str, float]] = {
    "trainmaster_rank_crash_s": {"at_most": 1.0},
    "trainmaster_node_death_s": {"at_most": 3.0},
    "trainmaster_node_freeze_s": {"at_most": 8.0},
    "ratio_sbatch_tuned_to_trainmaster_node_death": {"at_least": 20.0},
    "ratio_submitit_tuned_to_trainmaster_node_death": {"at_least": 20.0},
    "ratio_torchrun_to_trainmaster_node_death": {"at_least": 3.0},
    "ratio_torchrun_tuned_to_trainmaster_node_death": {"at_least": 3.0},
}


def collect(done: Iterable[Measured]) -> Figures:
    """All repeats as flat figures."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in done:
        groups.setdefault((one.peer, one.fault), []).append(one)
    found: Figures = {}
    for (peer, fault), ones in groups.items():
        found |= figures.spread(f"{peer}_{fault}_s", [one.recovered_s for one in ones])
        lost = [one.lost_steps for one in ones if one.lost_steps is not None]
        found[f"{peer}_{fault}_lost_steps"] = math.ceil(sum(lost) / len(lost)) if lost else None
        if notes := sorted({one.note for one in ones if one.note}):
            found[f"{peer}_{fault}_note"] = "; ".join(notes)
    for peer, fault in groups:
        if peer != "trainmaster" and f"trainmaster_{fault}_s" in found:
            key = f"ratio_{peer}_to_trainmaster_{fault}"
            found[key] = figures.ratio(found, f"{peer}_{fault}_s", f"trainmaster_{fault}_s")
    return found


def above_floor(found: Figures) -> Figures:
    """How far each recovery is from the floor. Elsewhere new processes have to be started; trainmaster's are warm."""
    more: Figures = {}
    for peer in PEERS:
        total = found.get(f"floor_{'warm' if peer.ours and peer.name != 'trainmaster_cold' else 'cold'}_total_s")
        for fault in (*FAULTS, *MORE_FAULTS):
            value = found.get(f"{peer.name}_{fault}_s")
            if isinstance(value, int | float) and isinstance(total, int | float):
                more[f"{peer.name}_{fault}_above_floor_s"] = round(value - total, 4)
    return more


def show(found: Figures, console: Console) -> None:
    """The tables."""
    table = Table(title="seconds from the fault to the next new step: median (least - most), steps done twice")
    table.add_column("")
    shown = [fault for fault in (*FAULTS, *MORE_FAULTS) if any(f"{peer.name}_{fault}_s" in found for peer in PEERS)]
    for fault in shown:
        table.add_column(fault.replace("_", " "), justify="right")
    for peer in PEERS:
        if any(f"{peer.name}_{fault}_s" in found for fault in shown):
            table.add_row(peer.title, *(cell(found, f"{peer.name}_{fault}") for fault in shown))
    console.print(table)
    if "floor_cold_total_s" in found:
        table = Table(title="the floor in seconds: four ranks from their start to their first step after a checkpoint")
        for column in ("", *(part.replace("_", " ") for part in PARTS)):
            table.add_column(column, justify="right")
        for kind in ("cold", "warm"):
            table.add_row(kind, *(f"{found[f'floor_{kind}_{part}_s']:.3f}" for part in PARTS))
        console.print(table)
        for fault in shown:
            if (above := found.get(f"trainmaster_{fault}_above_floor_s")) is not None:
                console.print(f"trainmaster is {above:.2f} s above the warm floor after a {fault.replace('_', ' ')}")
    for key, wanted in GOALS.items():
        if key in found:
            console.print(f"goal  {key:<55} {found[key]}  {figures.goal(found[key], **wanted)}")


def cell(found: Figures, stem: str) -> str:
    """One cell of the table."""
    if f"{stem}_s" not in found:
        return "-"
    middle, least, most = (found[key] for key in (f"{stem}_s", f"{stem}_min_s", f"{stem}_max_s"))
    if middle is None:
        return f"no recovery ({found[f'{stem}_failed']} of {found[f'{stem}_repeats']})"
    return f"{middle:.2f} ({least:.2f} - {most:.2f}), {found[f'{stem}_lost_steps']}"
