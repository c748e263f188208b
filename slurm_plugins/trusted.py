"""Who else than root may change a file: what root runs must be root's, and so must every folder above it."""

import os
import pwd
import stat
from pathlib import Path


def who_else_may_write(path: Path, *, also: str = "") -> str:
    """ "" when only root, this process's user and `also` may change a file or put another in its place; else who.

    Links are followed, since it is their target that is run. A folder in which only the owner of a file may remove it
    (/tmp) is as good as one that nobody may write.
    """
    fine = {0, os.geteuid()}
    if also:
        try:
            fine.add(pwd.getpwnam(also).pw_uid)
        except KeyError:
            pass
    real = path.resolve()
    for one in (real, *real.parents):
        try:
            found = one.stat()
        except OSError as error:
            return f"{one} cannot be looked at: {error.strerror}"
        if found.st_uid not in fine:
            return f"{one} belongs to {_name(found.st_uid)}"
        shared = stat.S_ISDIR(found.st_mode) and one != real and found.st_mode & stat.S_ISVTX
        if found.st_mode & 0o002 and not shared:
            return f"{one} can be written by everybody"
        if found.st_mode & 0o020 and found.st_gid != 0 and not shared:
            return f"{one} can be written by its group"
    return ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
