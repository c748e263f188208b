"""A rank's own time: what it does itself, without sections and without waiting for others."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainmaster.launcher.rank import collectives, page
from trainmaster.launcher.rank.gpu_time import SAMPLE_EVERY, GpuTime
from trainmaster.launcher.rank.page import Collective, Page, Section

torch = pytest.importorskip("torch")
dist = torch.distributed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    page.create(tmp_path / "page")
    return tmp_path / "page"


def test_sections_and_waiting_are_not_a_ranks_own(file: Path) -> None:
    mapped = Page(file)
    mapped.step(0)
    assert page.read(file).timed == 0
    time.sleep(0.03)
    with Collective(mapped):
        time.sleep(0.2)
        with Collective(mapped):
            time.sleep(0.01)
    with Section(mapped, "save"):
        time.sleep(0.4)
        with Collective(mapped):
            time.sleep(0.01)
    mapped.step(1)
    found = page.read(file)
    assert found.timed == 1
    assert 0.03 <= found.own_s < 0.2 and found.wall_s >= found.own_s + 0.21
    assert found.wall_s < 0.6
    mapped.step(2)
    again = page.read(file)
    assert again.timed == 2 and again.own_s - found.own_s < 0.2


def test_a_loop_inside_a_section_counts_nothing(file: Path) -> None:
    mapped = Page(file)
    with Section(mapped, "everything"):
        for number in range(3):
            time.sleep(0.05)
            mapped.step(number)
    mapped.step(3)
    assert page.read(file).own_s < 0.15


def test_an_exception_ends_the_waiting(file: Path) -> None:
    mapped = Page(file)
    mapped.step(0)
    with pytest.raises(KeyError), Collective(mapped):
        raise KeyError
    time.sleep(0.02)
    mapped.step(1)
    assert page.read(file).own_s >= 0.02
    with Collective(None):
        pass


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one, and torch as it was afterwards."""
    before = {name: getattr(dist, name) for name in collectives.COLLECTIVES}
    inner = {name: getattr(dist.distributed_c10d, name) for name in collectives.COLLECTIVES}
    backward, wait = torch.autograd.backward, dist.Work.wait
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    for name in collectives.COLLECTIVES:
        setattr(dist, name, before[name])
        setattr(dist.distributed_c10d, name, inner[name])
    torch.autograd.backward, dist.Work.wait = backward, wait


class Counting(Page):
    """A page that counts how often it is left."""

    left = 0

    def leave(self) -> None:
        self.left += 1
        super().leave()


def test_without_a_process_group_nothing_is_wrapped(file: Path) -> None:
    before = dist.all_reduce
    assert not collectives.install(Page(file))
    assert dist.all_reduce is before


def test_torch_tells_by_itself_when_it_may_wait(file: Path, alone: None) -> None:
    mapped = Counting(file)
    assert collectives.install(mapped)
    dist.all_reduce(torch.ones(2))
    assert mapped.left > 0
    before = mapped.left
    dist.all_reduce(torch.ones(2), async_op=True).wait()
    assert mapped.left >= before + 2
    before = mapped.left
    weight = torch.ones(2, requires_grad=True)
    (weight * 2).sum().backward()
    assert mapped.left == before + 1
    assert dist.all_reduce.__name__ == "all_reduce"


def test_the_thread_that_saves_is_not_the_training(file: Path, alone: None) -> None:
    mapped = Counting(file)
    assert collectives.install(mapped)
    saver = threading.Thread(target=lambda: dist.barrier())
    saver.start()
    saver.join()
    assert mapped.left == 0


def test_compiled_functions_still_compile_whole(file: Path, alone: None) -> None:
    """torch.compile must not meet our clock inside a graph, where it would break it in two."""
    assert collectives.install(Page(file))

    def loss(values: Any) -> Any:
        dist.all_reduce(values)
        return values * 2

    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]


class Stream:
    """A GPU whose clock we turn, and the events that were put into its stream."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.reached = True
        self.events = 0

    def event(self) -> Any:
        stream = self

        class Event:
            def record(self) -> None:
                stream.events += 1
                self.at_ms = stream.now_ms

            def query(self) -> bool:
                return stream.reached

            def elapsed_time(self, other: "Event") -> float:
                return other.at_ms - self.at_ms

        return Event()


def test_the_gpus_own_clock(file: Path) -> None:
    mapped, stream = Page(file), Stream()
    mapped.clock = GpuTime(stream.event, mapped.took)
    for number in range(2 * SAMPLE_EVERY + 1):
        stream.reached = number != SAMPLE_EVERY
        stream.now_ms += 300
        with Collective(mapped):
            stream.now_ms += 200
        mapped.step(number)
    found = page.read(file)
    assert found.timed == 2
    assert found.own_s == pytest.approx(0.6) and found.wall_s == pytest.approx(1.0)
    assert stream.events <= 3 * 4, "only one step in sixteen may cost anything"


def test_a_step_with_a_section_is_no_measure_of_the_gpu(file: Path) -> None:
    mapped, stream = Page(file), Stream()
    mapped.clock = GpuTime(stream.event, mapped.took)
    for number in range(2 * SAMPLE_EVERY):
        with Section(mapped, "evaluate"):
            stream.now_ms += 1000
        mapped.step(number)
    assert page.read(file).timed == 0
