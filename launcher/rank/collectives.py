"""Sees by itself when a rank waits for others: wraps torch's collectives. Standard library only; torch is there or not.

In synchronous training all ranks take the same time for a step, since the quick ones wait for the slow one. Who is
slow shows only in the time outside of what waits. What may wait is every collective of torch.distributed, and every
backward pass, in which DDP and FSDP talk to the other ranks from C++. What waits unseen (a collective that a program
imported by name, or one inside torch.compile) makes a slow rank harder to find, and no other rank suspicious: all wait
there for the same one.
"""

import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from trainmaster.launcher.rank.gpu_time import GpuTime
from trainmaster.launcher.rank.page import Page

COLLECTIVES = (
    *("barrier", "monitored_barrier", "all_reduce", "reduce", "broadcast", "all_gather", "all_gather_into_tensor"),
    *(
        "gather",
        "scatter",
        "reduce_scatter",
        "reduce_scatter_tensor",
        "all_to_all",
        "all_to_all_single",
        "send",
        "recv",
    ),
    *("broadcast_object_list", "all_gather_object", "gather_object", "scatter_object_list"),
)
"""Functions of torch.distributed that may wait for other ranks (torch 2.13)."""


def around(
    function: Callable[..., Any], page: Page, is_compiling: Callable[[], bool], *, thread: int
) -> Callable[..., Any]:
    """`function`, whose time in this thread is not counted as the rank's own."""

    @functools.wraps(function)
    def waiting(*args: Any, **values: Any) -> Any:
        # torch.compile takes this question for a constant, and then knows the function by itself again. A thread that
        # saves a checkpoint waits for others too, and not in the step's time.
        if is_compiling() or threading.get_ident() != thread:
            return function(*args, **values)
        page.leave()
        try:
            return function(*args, **values)
        finally:
            page.come_back(waited=True)

    return waiting


def install(page: Page) -> bool:
    """Wrap torch's collectives, if this process has begun to talk to others. To be called by the training's thread."""
    torch = sys.modules.get("torch")
    dist = getattr(torch, "distributed", None)
    if torch is None or dist is None or not dist.is_available() or not dist.is_initialized():
        return False
    watched = functools.partial(
        around, page=page, is_compiling=torch.compiler.is_compiling, thread=threading.get_ident()
    )
    for name in COLLECTIVES:
        function = getattr(dist, name, None)
        if function is not None:
            wrapped = watched(function)
            for module in (dist, getattr(dist, "distributed_c10d", None)):
                if isinstance(module, ModuleType) and getattr(module, name, None) is function:
                    setattr(module, name, wrapped)
    torch.autograd.backward = watched(torch.autograd.backward)
    try:
        dist.Work.wait = watched(dist.Work.wait)
    except (AttributeError, TypeError):
        pass  # asynchronous collectives then count as the rank's own time, on all ranks alike
    if torch.cuda.is_initialized():
        page.clock = GpuTime(lambda: torch.cuda.Event(enable_timing=True), page.took)
    return True
