"""What a rank leaves on its page is what its agent reads."""

import time
from pathlib import Path

from trainmaster.launcher.rank import page
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
