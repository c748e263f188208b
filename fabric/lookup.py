"""The look-up file that Slurm's `job_submit.lua` reads: short lines that Lua takes apart fast. Pure.

trainmaster-placements 1 made=1700000000 expires=1700000060
pod tm-pod01                                   pods have numbers from 1 on, in this order
part batch gpu,ib 12,8,0                       a partition, what all its nodes have, what each pod has free
size 4 1;2                                     4 nodes: pod 1, or if that is gone, pod 2
size 16 1,2                                    16 nodes: pods 1 and 2 together
ours 17 19                                     waiting jobs whose Prefer is of our making
end 6                                          lines before this one; without it the file is torn
"""

from collections.abc import Iterable, Sequence

from trainmaster.fabric.foresight import Foresight

VERSION = 1
PREFER_MAX = 1000
"""Characters of a job's Prefer that Slurm takes (it says 1024)."""
_NONE = "-"


def text(seen: Foresight, labels: Sequence[str], *, made: float, expires: float, ours: Iterable[int] = ()) -> str:
    """The file. Sets with a pod that has no label are left out, since Slurm could not be told of it.

    Args:
        seen: what was worked out.
        labels: [pods] see `foresight.labels`.
        made: when Slurm was asked, seconds since the epoch.
        expires: from when on nobody shall rely on it.
        ours: jobs that carry a preference of ours.
    """
    lines = [f"trainmaster-placements {VERSION} made={made:.0f} expires={expires:.0f}"]
    lines += [f"pod {name or _NONE}" for name in labels]
    for table in seen.tables:
        free = ",".join(str(count) for count in table.free)
        lines.append(f"part {table.partition} {','.join(table.features) or _NONE} {free}")
        for size, sets in table.sizes:
            usable = [pods for pods in sets if preference(pods, labels)]
            if usable:
                choices = ";".join(",".join(str(pod + 1) for pod in pods) for pods in usable)
                lines.append(f"size {size} {choices}")
    lines.append(" ".join(["ours", *(str(job_id) for job_id in sorted(ours))]))
    lines.append(f"end {len(lines)}")
    return "\n".join(lines) + "\n"


def preference(pods: Sequence[int], labels: Sequence[str]) -> str:
    """What a job's Prefer becomes; "" when it cannot be said.

    >>> preference((0, 2), ("tm-a", "tm-b", "tm-c"))
    'tm-a|tm-c'
    """
    words = [labels[pod] for pod in pods]
    said = "|".join(words)
    return said if words and all(words) and len(said) <= PREFER_MAX else ""


def is_ours(prefer: str, labels: Iterable[str]) -> bool:
    """Whether a job's Prefer is one that we, or the Lua side, wrote: nothing but labels.

    >>> is_ours("tm-a|tm-c", ("tm-a", "tm-b", "tm-c")), is_ours("h200|tm-a", ("tm-a",)), is_ours("", ("",))
    (True, False, False)
    """
    known = {name for name in labels if name}
    return bool(prefer) and set(prefer.split("|")) <= known
