"""The examples are scripts, not part of the package: their folders go on the path, as `python FOLDER/script.py` has it."""

import os
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PLACES = [str(EXAMPLES / "tiny_gpt"), str(EXAMPLES / "demo")]
sys.path[:0] = PLACES
# For the scripts beside this file, which tests start.
os.environ["PYTHONPATH"] = os.pathsep.join([*PLACES, *filter(None, [os.environ.get("PYTHONPATH")])])
