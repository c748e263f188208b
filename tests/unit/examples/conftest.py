"""The examples are scripts, not a package: their folders go on the path, as they do in `python FOLDER/script.py`."""

import os
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PLACES = [str(EXAMPLES / "tiny_gpt"), str(EXAMPLES / "demo")]
sys.path[:0] = PLACES
# For the scripts beside this file, which tests start.
os.environ["PYTHONPATH"] = os.pathsep.join([*PLACES, *filter(None, [os.environ.get("PYTHONPATH")])])
