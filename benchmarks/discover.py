"""How long from a fabric's text to topology.conf, beside the time that ibnetdiscover itself takes for that text.

The real ibnetdiscover asks a simulated fabric (ibsim) of 256 to 4,096 adapters, with --large of 16,384; then the same
text goes through the reader, the merge and the writer. A text of 32,768 adapters, which ibsim needs minutes for, is
generated. Steps are medians of several runs in CPU seconds of this process; `command` is a whole `trainmaster fabric
emit tree --from FILE`, with the start of the interpreter and all imports, in CPU seconds too (wall: in the last
line). The tool waits for the simulator, so its time is wall time.

    python benchmarks/discover.py [--quick] [--large]
"""

import argparse
import contextlib
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainmaster.fabric.emit import tree_conf
from trainmaster.fabric.generate import generate, parse_shape, with_manager
from trainmaster.fabric.lint import lint
from trainmaster.fabric.merge import collapse
from trainmaster.fabric.model import Fabric, Kind
from trainmaster.fabric.netlist import netlist
from trainmaster.fabric.sources import ibnetdiscover
from trainmaster.lab.install import search_path

SHAPES = {256: "rail:1x32", 1024: "rail:4x32", 4096: "pods:4x4x32", 16384: "pods:16x4x32", 32768: "pods:32x4x32"}
PRELOADS = tuple(Path("/usr/lib").glob("*/umad2sim/libumad2sim.so"))


@contextlib.contextmanager
def simulated(fabric: Fabric, folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which ibnetdiscover sees a fabric."""
    (folder / "netlist").write_text(netlist(fabric, simulator=True))
    switches = len(fabric.switches)
    ports = sum(switch.ports + 1 for switch in fabric.switches) + 2 * len(fabric.hcas)
    name = f"tmbench{os.getpid()}"
    manager = next(hca for hca in fabric.hcas if hca.kind is Kind.SERVICE)
    env = {**os.environ, "PATH": search_path(), "IBSIM_SOCKNAME": name}
    sizes = ["-N", str(switches + len(fabric.hcas) + 8), "-S", str(switches + 8), "-P", str(ports + 64), "-L", "49152"]
    with (folder / "ibsim.out").open("wb") as output:
        ibsim = subprocess.Popen(
            ["ibsim", "-s", "-n", *sizes, "netlist"], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output,
        )  # fmt: skip
    try:
        while f"@{name}:ctl" not in Path("/proc/net/unix").read_text():
            if ibsim.poll() is not None:
                raise SystemExit(f"ibsim ended: {(folder / 'ibsim.out').read_text()[-500:]}")
            time.sleep(0.05)
        yield {**env, "SIM_HOST": f"H-{manager.guid[2:]}", "LD_PRELOAD": str(PRELOADS[0])}
    finally:
        ibsim.terminate()
        ibsim.wait()


def real_text(fabric: Fabric) -> tuple[str, float]:
    """What ibnetdiscover prints, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as name, simulated(fabric, Path(name)) as env:
        begin = time.perf_counter()
        done = subprocess.run(["ibnetdiscover"], cwd=name, env=env, capture_output=True, text=True, check=True)
        return done.stdout, time.perf_counter() - begin


def ours(text: str, runs: int) -> dict[str, float]:
    """Median CPU seconds of each step on a text."""
    spent: dict[str, list[float]] = {"parse": [], "merge": [], "emit": []}
    for _ in range(runs):
        gc.collect()
        marks = [time.process_time()]
        fabric = ibnetdiscover.read(text)
        marks.append(time.process_time())
        tree = collapse(fabric)
        marks.append(time.process_time())
        conf = tree_conf(tree)
        marks.append(time.process_time())
        assert not lint(conf, slurm_nodes=tree.nodes)
        for step, low, high in zip(spent, marks, marks[1:], strict=False):
            spent[step].append(high - low)
    return {step: statistics.median(values) for step, values in spent.items()}


def command(text: str, runs: int) -> tuple[float, float]:
    """Median CPU and wall seconds of the whole command on a text in a file."""
    spent, walls = [], []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        for _ in range(runs):
            begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            argv = [sys.executable, "-m", "trainmaster", "fabric", "emit", "tree", "--from", file.name]
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
            walls.append(time.perf_counter() - begin)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent), statistics.median(walls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 and 1,024 adapters, and the text of 32,768; 20 s")
    parser.add_argument("--large", action="store_true", help="also 16,384 adapters in ibsim: a minute and 1 GB more")
    args = parser.parse_args()
    sizes = [256, 1024] if args.quick else [256, 1024, 4096, *([16384] if args.large else [])]
    if not PRELOADS:
        print("ibsim is not on this machine (scripts/setup installs it): only the generated text", file=sys.stderr)
        sizes = []
    figures: dict[str, float] = {}
    heads = ("parse", "merge", "emit")
    print(
        f"{'adapters':>9} {'text':>8} {'ibnetdiscover':>14} {'command':>9}",
        *(f"{head:>9}" for head in heads),
        "  topology",
    )
    for size in [*sizes, 32768]:
        fabric = with_manager(generate(replace(parse_shape(SHAPES[size]), lane_gbps=53.125)))
        text, tool_s = real_text(fabric) if size in sizes else (netlist(fabric), 0.0)
        runs = 3 if args.quick else 5
        steps, (cpu_s, wall_s) = ours(text, runs), command(text, runs)
        tree = collapse(ibnetdiscover.read(text))
        assert len(tree.nodes) == size // 8
        shown = f"{tool_s:12.2f} s" if tool_s else f"{'-':>14}"
        times = " ".join(f"{steps[step] * 1000:6.0f} ms" for step in ("parse", "merge", "emit"))
        made = f"{len(tree.leaves)} leaves, {len(tree.pods)} pods"
        print(f"{size:>9} {len(text) / 1e6:5.1f} MB {shown} {cpu_s:7.2f} s {times}   {made}")
        figures |= {f"{step}_{size}_cpu_s": round(value, 4) for step, value in steps.items()}
        figures |= {f"command_{size}_cpu_s": round(cpu_s, 3), f"command_{size}_wall_s": round(wall_s, 3)}
        if tool_s:
            figures[f"ibnetdiscover_{size}_wall_s"] = round(tool_s, 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
