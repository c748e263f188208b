"""Writes a file, makes sure that it is on storage, reads it back and compares. `storage.py MIB FOLDER…`.

A JSON object for each folder, a line each: `{"folder": …, "write_mbps": …, "read_mbps": …, "direct": true}`, or with an
`error` and its number. Nothing is judged here (health/checks/deep_storage_*.py do that). Standard library only, any
Python from 3.9 on.

The page cache is passed by (O_DIRECT) where the file system can; elsewhere the file is dropped from it before it is
read, as far as the kernel does so. The file has no name any more while it is used, so nothing stays behind whatever
happens to this process; where the file system cannot do that (some network ones rename it instead), it is removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import sys
import time
from typing import Any

MIB = 1 << 20
PIECE = 4 * MIB


def measure(folder: str, mib: int) -> dict[str, Any]:
    """Figures of one folder."""
    figures: dict[str, Any] = {"folder": folder, "mib": mib}
    # Not under a fixed name: many nodes do this in one folder at the same time.
    path = f"{folder}/.trainmaster-{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        descriptor, figures["direct"] = _open(path)
        try:
            os.unlink(path)
            figures.update(_run(descriptor, mib))
        finally:
            os.close(descriptor)
    except OSError as error:
        figures.update(error=error.strerror or str(error), errno=error.errno or 0)
    finally:
        try:
            os.unlink(path)
        except OSError:
            pass  # it has gone already
    return figures


def _open(path: str) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    try:
        # Some file systems make the file before they refuse.
        os.unlink(path)
    except OSError:
        pass
    return os.open(path, flags, 0o600), False


def _run(descriptor: int, mib: int) -> dict[str, Any]:
    # Direct transfers want memory that begins at a page. What is written differs from piece to piece.
    base = hashlib.shake_128(os.urandom(16)).digest(MIB)
    out, back = mmap.mmap(-1, PIECE), mmap.mmap(-1, PIECE)
    count = max(1, mib * MIB // PIECE)
    began_s = time.perf_counter()
    for number in range(count):
        _fill(out, base, number)
        _whole(os.write(descriptor, out))
    os.fsync(descriptor)
    written_s = time.perf_counter() - began_s
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(descriptor, 0, os.SEEK_SET)
    wrong, read_s = 0, 0.0
    for number in range(count):
        began_s = time.perf_counter()
        _whole(os.readv(descriptor, [back]))
        read_s += time.perf_counter() - began_s
        _fill(out, base, number)
        wrong += out[:] != back[:]
    amount = count * PIECE / 1e6
    return {
        "write_mbps": round(amount / written_s, 1),
        "read_mbps": round(amount / max(read_s, 1e-9), 1),
        "wrong_pieces": wrong,
    }


def _fill(piece: mmap.mmap, base: bytes, number: int) -> None:
    piece.seek(0)
    for part in range(PIECE // MIB):
        piece.write(base)
        at = part * MIB
        piece[at : at + 16] = (number * 64 + part).to_bytes(16, "little")


def _whole(count: int) -> None:
    if count != PIECE:
        raise OSError(errno.EIO, f"{count} of {PIECE} bytes were transferred")


def main(argv: list[str]) -> int:
    """Measure the folders one after another and print."""
    for folder in argv[1:]:
        sys.stdout.write(json.dumps(measure(folder.rstrip("/") or "/", int(float(argv[0])))) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
