"""Where labs lie on this machine, and which folders can hold one."""

import contextlib
import os
from pathlib import Path

from trainmaster.errors import LabError
from trainmaster.lab.state import STATE_FILE, LabState, load

# sun_path of unix(7) holds 108 bytes, the last of them zero.
_SOCKET_PATH_MAX = 107


def base() -> Path:
    """The folder of this user's labs: each lab, or a link to it, under its name.

    munged refuses to listen below a folder that others cannot pass, and a login session's own /run/user/UID is one.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    open_to_all = runtime.is_dir() and runtime.stat().st_mode & 0o001
    root = runtime if open_to_all else Path("/tmp")
    return root / f"trainmaster-lab-{os.getuid()}"


def make_base() -> Path:
    """Make sure that the folder of labs exists and is ours."""
    folder = base()
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise LabError(
            f"{folder} belongs to somebody else", hint="set XDG_RUNTIME_DIR to a folder of your own with a short name"
        )
    return folder


def all_labs() -> tuple[LabState, ...]:
    """The labs of this user, running or not, by name."""
    if not base().is_dir():
        return ()
    found: dict[Path, LabState] = {}
    for path in sorted(base().iterdir()):
        folder = path.resolve()
        # One that cannot be read is being removed by another command right now.
        with contextlib.suppress(LabError):
            found[folder] = load(folder)
    return tuple(found.values())


def folder_of(slurm_conf: str) -> Path | None:
    """The lab whose configuration SLURM_CONF names, as a shell has it that evaluated `lab env`; None for no lab's."""
    folder = Path(slurm_conf).parent
    return folder if slurm_conf and (folder / STATE_FILE).is_file() else None


def claim(name: str, folder: Path | None) -> Path:
    """Make the empty folder of a new lab, known under `name`. Raises LabError when something is there already."""
    place = make_base() / name
    if place.is_symlink() and not place.exists():
        # The folder that it led to was removed by hand.
        place.unlink()
    if folder is None:
        _claim_new(place)
        return place.resolve()
    folder = folder.absolute()
    if folder.exists():
        _refuse_used(folder)
    else:
        _claim_new(folder)
    folder = folder.resolve()
    try:
        place.symlink_to(folder)
    except FileExistsError:
        folder.rmdir()
        raise _taken(place) from None
    return folder


def forget(name: str, folder: Path) -> None:
    """Remove the link to a lab that lies elsewhere."""
    place = base() / name
    if place.is_symlink() and place.resolve() == folder:
        place.unlink()


def check_path(folder: Path, node_names: tuple[str, ...]) -> None:
    """Raise LabError when sockets in `folder` would have names too long for the kernel, or the folder an odd name."""
    longest = max(node_names, key=len)
    # The longest that Slurm makes is pmix's: <spool>/stepd.slurm.pmix.<job>.<step>, with 32-bit numbers.
    room = _SOCKET_PATH_MAX - len(f"/spool/{longest}/stepd.slurm.pmix.4294967295.4294967295")
    length = len(os.fsencode(folder))
    if length > room:
        raise LabError(
            f"the folder {folder} has {length} bytes in its name; with more than {room} the names of Slurm's sockets "
            "in it exceed the 108 bytes that the kernel takes",
            hint="choose a folder with a shorter name, such as one under /tmp",
        )
    strange = sorted({c for c in str(folder) if not (c.isalnum() or c in "/._-+")})
    if strange:
        raise LabError(
            f"the folder {folder} has {''.join(strange)!r} in its name, which slurm.conf cannot hold",
            hint="use letters, digits and ._-+ only",
        )


def _claim_new(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        _refuse_used(folder)
    except OSError as error:
        raise LabError(f"the lab's folder {folder} could not be made: {error.strerror}") from None


def _refuse_used(folder: Path) -> None:
    if not folder.is_dir():
        raise LabError(f"{folder} is not a folder")
    if (folder / STATE_FILE).exists():
        raise _taken(folder)
    if any(folder.iterdir()):
        raise LabError(f"{folder} is not empty and holds no lab", hint="name an empty or a new folder")


def _taken(folder: Path) -> LabError:
    return LabError(
        f"there is a lab in {folder} already",
        hint=f"`trainmaster lab down --folder {folder}` ends it, whether it still runs or not; or take another --name",
    )
