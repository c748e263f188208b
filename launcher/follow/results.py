"""What a job returned, which is a pickle: reading one runs whatever its writer put into it."""

import os
import pwd
from pathlib import Path
from typing import Any

from submitit.core import utils

from trainmaster.errors import UsageError

_NOBODY = 65534
"""Whose files root's are on a file system that does not believe in root."""


def load(path: Path) -> tuple[str, Any]:
    """("success", value) or ("error", traceback). Raises UsageError for a file of somebody else."""
    owner, me = path.stat().st_uid, os.geteuid()
    if owner not in {0, me} and not (me == 0 and owner == _NOBODY):
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = str(owner)
        raise UsageError(
            f"would not read the result {path}: it belongs to {name}, and a pickle can run anything as who reads it",
            hint="if you trust it, copy it and read the copy: `cloudpickle.load(open(copy, 'rb'))`",
        )
    outcome, value = utils.pickle_load(path)
    return outcome, value
