"""The benchmarks are scripts, not a package: their folder goes on the path, as it does in `python benchmarks/x.py`."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
