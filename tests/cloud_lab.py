"""A real slurmctld over nodes that nobody started: cloud nodes, which Slurm allocates before they are there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trainmaster.lab.cluster import Lab, LabSpec, up

NODES = "sim"
"""The partition of the cloud nodes."""


@contextmanager
def cloud(*, pods: int, leaves: int, nodes: int, settings: Mapping[str, str] | None = None) -> Iterator[Lab]:
    """A lab with pods x leaves x nodes cloud nodes c0001, c0002 … in the order of its topology.conf."""
    total = pods * leaves * nodes
    width = len(str(total))
    with up(LabSpec(nodes=1, leaf=1, gpus=0, settings=settings or {})) as lab:
        names = f"c[{1:0{width}}-{total:0{width}}]"
        added = {
            "SuspendProgram": "/bin/true",
            "ResumeProgram": "/bin/true",
            "SuspendTime": "3600",
            "ResumeTimeout": "3600",
        }
        lines = [f"{key}={value}" for key, value in added.items()]
        lines += [
            f"NodeName={names} State=CLOUD CPUs=8 RealMemory=100000",
            f"PartitionName={NODES} Nodes={names} State=UP MaxTime=INFINITE DefaultTime=60 OverSubscribe=EXCLUSIVE",
        ]
        text = lab.conf.read_text().replace("Nodes=ALL", "Nodes=n01")
        lab.conf.write_text(text + "\n".join(lines) + "\n")
        switches, first, tops = ["SwitchName=own Nodes=n01", "SwitchName=ownpod Switches=own"], 1, ["ownpod"]
        for pod in range(pods):
            below = []
            for leaf in range(leaves):
                last = first + nodes - 1
                below.append(f"leaf{pod:02}x{leaf:02}")
                switches.append(f"SwitchName={below[-1]} Nodes=c[{first:0{width}}-{last:0{width}}]")
                first = last + 1
            tops.append(f"pod{pod:02}")
            switches.append(f"SwitchName={tops[-1]} Switches={','.join(below)}")
        switches.append(f"SwitchName=top Switches={','.join(tops)}")
        (lab.folder / "topology.conf").write_text("\n".join(switches) + "\n")
        lab.stop_process("slurmctld")
        lab.start_slurmctld()
        yield lab
