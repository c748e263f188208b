"""Each threat in docs/security.md names a test, and that test exists."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOC = ROOT / "docs" / "security.md"
SAME = "the same"


def threats(text: str) -> Iterator[tuple[str, str]]:
    """What is tried, and the cell that names its test."""
    table = text.partition("| tried | what stops it | test |\n")[2].partition("\n\n")[0]
    for line in table.splitlines()[1:]:
        # A bar within a cell would be written as \|.
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        assert len(cells) == 3, line
        yield cells[0], cells[2]


def missing(cell: str, files: dict[str, str]) -> list[str]:
    """The words of a cell that no test bears; the cell itself when it names none."""
    words = re.findall(r"`([^`]+)`", cell)
    if not words:
        return [cell or "nothing"]
    found = []
    for word in words:
        if "/" in word or word.endswith(".py"):
            holds = any(path == word or path.startswith(f"{word}/") or path.endswith(f"/{word}") for path in files)
        else:
            holds = any(re.search(rf"(?m)^\s*def {re.escape(word)}\(", text) for text in files.values())
        found += [] if holds else [word]
    return found


def texts() -> dict[str, str]:
    paths = (ROOT / "tests").rglob("test_*.py")
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def test_every_threat_names_a_test_that_is_there() -> None:
    files, before = texts(), ""
    rows = list(threats(DOC.read_text(encoding="utf-8")))
    assert len(rows) >= 10
    for tried, named in rows:
        before = before if named == SAME else named
        assert missing(before, files) == [], f"{tried}: no test is called so"


def test_a_test_that_is_gone_is_found() -> None:
    files = {"tests/unit/a/test_b.py": "def test_c(x):\n    pass\n"}
    for cell in ("`test_c`", "`test_b.py`", "`tests/unit/a`", "`tests/unit/a/test_b.py`, and `test_c` too"):
        assert missing(cell, files) == []
    assert missing("`test_c`, `test_d`", files) == ["test_d"]
    assert missing("`tests/unit/b`", files) == ["tests/unit/b"] and missing("`est_b.py`", files) == ["est_b.py"]
    assert missing("", files) == ["nothing"] and missing("by hand", files) == ["by hand"]
