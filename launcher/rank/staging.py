"""Copies in host memory that a save works on while training goes on, and the thread that it works in."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch


def copy_into(memory: Any, value: Any) -> Any:
    """A copy of `value` (tensors, nested in dicts and lists), in the tensors of an earlier copy where they fit.

    Memory that is new to the process costs several times the copying itself.
    """
    if isinstance(value, dict):
        old = memory if isinstance(memory, dict) else {}
        return {key: copy_into(old.get(key), entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        earlier = list(memory) if type(memory) is type(value) else []
        earlier += [None] * (len(value) - len(earlier))
        return type(value)(copy_into(*pair) for pair in zip(earlier, value, strict=False))
    if not isinstance(value, torch.Tensor):
        return copy.deepcopy(value)
    value = value.detach()
    if type(memory) is type(value) and (memory.shape, memory.dtype) == (value.shape, value.dtype):
        return memory.copy_(value)
    return copy.deepcopy(value)


def in_background(work: Callable[[], None]) -> Future[None]:
    """Run `work` in a daemon thread: a rank that fails must be able to end while a save waits for other ranks."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return done
