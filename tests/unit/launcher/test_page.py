"""What a rank leaves on its page is what its agent reads."""

import math
import time
from pathlib import Path

import pytest

from trainmaster.launcher.rank import page, worker
from trainmaster.launcher.rank.page import Page, Report, Section


def test_steps_and_sections(tmp_path: Path) -> None:
    path = tmp_path / "page"
    assert page.read(path) == Report()
    page.create(path)
    assert page.read(path) == Report()
    mapped = Page(path)
    before_s = time.time()
    mapped.step(0)
    found = page.read(path)
    assert found.step == 0 and before_s <= found.step_epoch_s <= time.time() and not found.sections
    with Section(mapped, "evaluate"):
        time.sleep(0.02)
        outer = page.read(path)
        assert outer.section == "evaluate" and outer.section_age_s >= 0.02 and outer.sections
        with Section(mapped, "a name that is longer than the thirty-two bytes"):
            assert page.read(path).section == "a name that is longer than the t"
        inner = page.read(path)
        assert inner.section == "evaluate" and inner.section_age_s >= outer.section_age_s
    found = page.read(path)
    assert (found.step, found.section, found.section_age_s, found.sections) == (0, "", 0.0, True)


def test_an_exception_leaves_the_section(tmp_path: Path) -> None:
    path = tmp_path / "page"
    page.create(path)
    try:
        with Section(Page(path), "load"):
            raise KeyError
    except KeyError:
        pass
    assert page.read(path).section == ""


def test_outside_a_job_a_section_does_nothing() -> None:
    with Section(None, "load"):
        pass


def test_a_page_that_is_cut_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(bytes(16))
    assert page.read(tmp_path / "page") == Report()


def test_values_and_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "page"
    page.create(path)
    mapped = Page(path)
    for number in range(page.VALUES_MAX + 2):
        mapped.report(f"value {number}", number + 0.5)
    mapped.report("value 0", float("nan"))
    mapped.step(4)
    found = page.read(path)
    assert list(found.values) == [f"value {number}" for number in range(page.VALUES_MAX)]
    assert math.isnan(found.values["value 0"]) and found.values["value 7"] == 7.5
    assert (found.step, found.saved, found.holds, found.section) == (4, None, False, "")
    mapped.saved(0)
    mapped.hold()
    assert (page.read(path).saved, page.read(path).holds) == (0, True)


def test_a_rank_reads_a_tensor_seldom_and_a_number_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor:
        reads = 0

        def __float__(self) -> float:
            self.reads += 1
            return 2.5

    page.create(tmp_path / "page")
    monkeypatch.setattr(worker, "_page", Page(tmp_path / "page"))
    monkeypatch.setattr(worker, "_page_known", True)
    monkeypatch.setattr(worker, "_read_s", {})
    tensor = Tensor()
    for number in range(50):
        worker.step(number, loss=tensor, lr=number * 0.1, tokens=number)
    found = page.read(tmp_path / "page")
    assert tensor.reads == 1 and found.values == {"loss": 2.5, "lr": 49 * 0.1, "tokens": 49.0}
    worker.checkpoint_published(40)
    assert page.read(tmp_path / "page").saved == 40
