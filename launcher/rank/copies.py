"""A rank's copies of its state in its node's memory, for its agent's keeper to hold and to send on (`copy_keeper`).

A copy is one file: the bytes of all tensors that this rank has, then a pickle of where each lies and of all that is no
tensor. It is the state of one rank and no more: what is the same on all ranks is in every copy.
"""

import logging
import mmap
import pickle
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainmaster.launcher.node.copy_store import allocate

LOG = logging.getLogger("trainmaster.checkpoints")
_ALIGN = 64
_CHUNK_BYTES = 64 << 20
_TAIL = struct.Struct("!QQ")
"""At the end of a file: where the pickle begins, and its length."""

Path_ = tuple[Any, ...]
"""Keys and indices from the top of the state to a value."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a tensor lies in a file."""

    path: Path_
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """Bytes."""


def leaves(state: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every value of a state below its dicts and lists; of an object that has a state of its own, that.

    >>> list(leaves({"a": [1, {"b": 2}]}))
    [(('a', 0), 1), (('a', 1, 'b'), 2)]
    """
    if _is_stateful(state):
        state = state.state_dict()
    if isinstance(state, Mapping) and state:
        for key, value in state.items():
            yield from leaves(value, (*path, key))
    elif type(state) in (list, tuple) and state:
        for index, value in enumerate(state):
            yield from leaves(value, (*path, index))
    else:
        yield path, state


def _is_stateful(value: Any) -> bool:
    """As DCP sees it (torch.distributed.checkpoint.stateful): a module, an optimizer, a scheduler."""
    return not isinstance(value, Mapping | torch.Tensor) and hasattr(value, "load_state_dict")


def local(value: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this rank has: of a DTensor, its shard."""
    value = value.detach()
    to_local = getattr(value, "to_local", None)
    return value if to_local is None else to_local()


def plan(state: Any) -> tuple[list[Piece], list[torch.Tensor], dict[Path_, Any]]:
    """Where each tensor is to lie, the tensors, and all other values."""
    pieces: list[Piece] = []
    tensors: list[torch.Tensor] = []
    others: dict[Path_, Any] = {}
    offset = 0
    for path, value in leaves(state):
        if isinstance(value, torch.Tensor):
            tensor = local(value)
            pieces.append(Piece(path, tensor.dtype, tuple(tensor.shape), offset))
            tensors.append(tensor)
            offset += -(-tensor.numel() * tensor.element_size() // _ALIGN) * _ALIGN
        else:
            others[path] = value
    return pieces, tensors, others


def size_of(pieces: list[Piece]) -> int:
    """Bytes that the tensors take in a file."""
    if not pieces:
        return 0
    last = pieces[-1]
    bytes_ = torch.Size(last.shape).numel() * last.dtype.itemsize
    return last.offset + -(-bytes_ // _ALIGN) * _ALIGN


class Slot:
    """One of the rank's files, mapped; the views of its tensors are kept from copy to copy."""

    def __init__(self, path: Path, *, pinned: bool) -> None:
        self.path = path
        self._pinned = pinned
        self._raw: mmap.mmap | None = None
        self._pieces: list[Piece] = []
        self._views: list[torch.Tensor] = []

    def write(self, pieces: list[Piece], tensors: list[torch.Tensor], extra: bytes) -> int:
        """Copy all tensors, and what goes behind them; returns the size in bytes. Raises OSError without room."""
        end = size_of(pieces)
        size = end + len(extra) + _TAIL.size
        if self._raw is None or self._pieces != pieces or len(self._raw) < size:
            self._map(pieces, size)
        assert self._raw is not None
        for view, tensor in zip(self._views, tensors, strict=True):
            view.copy_(tensor, non_blocking=True)
        self._raw[end : end + len(extra)] = extra
        size = len(self._raw)
        self._raw[size - _TAIL.size : size] = _TAIL.pack(end, len(extra))
        if any(tensor.is_cuda for tensor in tensors):
            torch.cuda.current_stream().synchronize()
        return size

    def _map(self, pieces: list[Piece], size: int) -> None:
        # A little more, so that facts which grow by a word do not ask for a new file each time.
        size = -(-(size + (64 << 10)) // mmap.PAGESIZE) * mmap.PAGESIZE
        if self._pinned and self._raw is not None:
            _unpin(self._raw)
        self._views, self._raw = [], None
        allocate(self.path, size)
        with self.path.open("r+b") as stream:
            self._raw = mmap.mmap(stream.fileno(), size)
        self._pieces = pieces
        self._views = [_view(self._raw, piece) for piece in pieces]
        if self._pinned:
            _pin(self._raw, size)

    def crc(self) -> int:
        """CRC-32 of the file as it is."""
        assert self._raw is not None
        return _crc(self._raw)


def _view(raw: mmap.mmap, piece: Piece) -> torch.Tensor:
    count = torch.Size(piece.shape).numel()
    if not count:
        return torch.empty(piece.shape, dtype=piece.dtype)
    return torch.frombuffer(raw, dtype=piece.dtype, count=count, offset=piece.offset).view(piece.shape)


def _crc(raw: mmap.mmap) -> int:
    found = 0
    with memoryview(raw) as view:
        for start in range(0, len(view), _CHUNK_BYTES):
            found = zlib.crc32(view[start : start + _CHUNK_BYTES], found)
    return found


def _pin(raw: mmap.mmap, size: int) -> None:
    """Let the GPU write there by itself; without it a copy is slower, no more."""
    # 1: cudaHostRegisterPortable, as torch does for the memory of its own checkpoints.
    code = int(torch.cuda.cudart().cudaHostRegister(_address(raw), size, 1))  # type: ignore[no-untyped-call]
    if code:
        LOG.warning("cudaHostRegister of %d bytes: error %d; copies in memory will be slower", size, code)


def _unpin(raw: mmap.mmap) -> None:
    torch.cuda.cudart().cudaHostUnregister(_address(raw))  # type: ignore[no-untyped-call]


def _address(raw: mmap.mmap) -> int:
    return torch.frombuffer(raw, dtype=torch.uint8).data_ptr()


class Kept:
    """A copy from which this rank can go on."""

    def __init__(self, path: Path, *, step: int, size: int, crc: int) -> None:
        """Raises OSError, or ValueError when it is not what was written."""
        with path.open("rb") as stream:
            self._raw = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_COPY)
        if _crc(self._raw) != crc:
            raise ValueError(f"the copy of step {step} in {path} is damaged: its sum is not what it was")
        start, length = _TAIL.unpack(self._raw[size - _TAIL.size :])
        # Written by a rank of this job, and signed on its way here.
        stored = pickle.loads(self._raw[start : start + length])
        self.step = step
        self.size_bytes = size
        self.extra: dict[str, Any] = stored["extra"]
        self._others: dict[Path_, Any] = stored["others"]
        self._pieces: dict[Path_, Piece] = {piece.path: piece for piece in stored["pieces"]}

    def fits(self, state: Any) -> bool:
        """Whether every value of `state` is in it, each tensor with the same type and shape.

        What is empty in `state` asks for nothing, as with DCP.
        """
        for path, value in leaves(state):
            if isinstance(value, torch.Tensor):
                piece = self._pieces.get(path)
                tensor = local(value)
                if piece is None or (piece.dtype, piece.shape) != (tensor.dtype, tuple(tensor.shape)):
                    return False
            elif path not in self._others and not _is_empty(value):
                return False
        return True

    def fill(self, state: Any) -> None:
        """Put the values into `state` in place."""
        self._fill(state, ())
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _fill(self, state: Any, path: Path_) -> None:
        if _is_stateful(state):
            inner = state.state_dict()
            self._fill(inner, path)
            state.load_state_dict(inner)
            return
        for key, value in list(state.items() if isinstance(state, Mapping) else enumerate(state)):
            here = (*path, key)
            if isinstance(value, torch.Tensor):
                local(value).copy_(_view(self._raw, self._pieces[here]))
            elif here in self._others:
                if not isinstance(state, tuple):
                    state[key] = self._others[here]
            elif not _is_empty(value):
                self._fill(value, here)


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple) and not value


def extra_of(pieces: list[Piece], others: dict[Path_, Any], extra: dict[str, Any]) -> bytes:
    """What goes behind the tensors."""
    return pickle.dumps({"pieces": pieces, "others": others, "extra": extra}, protocol=5)
