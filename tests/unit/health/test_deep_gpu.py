"""The deep GPU checks, as far as they go without a GPU."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

from trainmaster.health.deep import gpu

DEEP = Path(gpu.__file__).parent


def test_the_compiled_kernels_are_those_of_the_source() -> None:
    ptx = (DEEP / "kernels.ptx").read_text()
    origin = hashlib.sha256((DEEP / "kernels.cu").read_bytes()).hexdigest()
    assert origin in ptx.splitlines()[0], "run scripts/build-kernels"
    # What every driver since CUDA 11.0 takes, for A100 and later.
    assert ".version 7.0" in ptx and ".target sm_80" in ptx
    launched = set(re.findall(r'gpu\.launch\("(\w+)"', (DEEP / "gpu.py").read_text()))
    assert launched == set(re.findall(r"\.visible \.entry (\w+)\(", ptx))


def test_a_warp_that_computed_something_else_is_found() -> None:
    right, wrong = bytes(128), b"\1" + bytes(127)
    assert gpu.odd_ones(right * 3 + wrong + right * 4, 128) == [3]
    assert gpu.odd_ones(right * 8, 128) == []


def test_without_a_driver_it_says_so_and_runs_under_a_bare_python() -> None:
    script = Path("src/trainmaster/health/deep/gpu.py")
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", str(Path(__file__).parents[3] / script), "99", "0.1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and figures["index"] == 99 and figures["error"], done.stderr


def test_each_gpu_has_a_line_also_when_none_is_there() -> None:
    lines = [json.loads(line) for line in gpu.measure_all(range(90, 93), 0.1)]
    assert [line["index"] for line in lines] == [90, 91, 92] and all(line["error"] for line in lines)
