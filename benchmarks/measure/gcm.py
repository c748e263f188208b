"""gcm (gpucm on PyPI) as a peer, in a virtual environment of its own below build/peers."""

import subprocess
import sys
import venv
from pathlib import Path

VERSION = "0.0.2"
HOME = Path(__file__).resolve().parents[2] / "build/peers/gcm"
DISK_USAGE = (
    *("check-storage", "disk-usage", "--volume", "/", "--usage-critical-threshold", "100"),
    *("--usage-warning-threshold", "100", "--sink", "do_nothing", "--log-folder", "/tmp/gcm-log", "here", "nagios"),
)


def program() -> Path | None:
    """`health_checks`, installed if it is not there yet; None, and why on stderr, where it cannot be had."""
    found = HOME / "bin/health_checks"
    if not found.exists():
        print(f"installing gpucm {VERSION} into {HOME}", file=sys.stderr)
        venv.create(HOME, with_pip=True, clear=True)
        words = [str(HOME / "bin/python"), "-m", "pip", "install", "--quiet", f"gpucm=={VERSION}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not found.exists():
            print(f"gcm is missing: {' '.join(done.stderr.split())[-300:]}", file=sys.stderr)
            return None
    return found
