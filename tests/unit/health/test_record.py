"""Records behave as `typing.NamedTuple` does wherever health/ uses it."""

import pickle
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from trainmaster.health.finding import Finding, Verdict
from trainmaster.health.record import NamedTuple
from trainmaster.health.state import State


class Ours(NamedTuple):
    a: int
    b: str = "x"

    @property
    def twice(self) -> int:
        """A member of the class's own."""
        return self.a * 2


class Theirs(typing.NamedTuple):
    a: int
    b: str = "x"


@pytest.mark.parametrize("made", [(1,), (1, "y"), (0, "")])
def test_it_is_what_typing_makes(made: typing.Any) -> None:
    ours, theirs = Ours(*made), Theirs(*made)
    assert tuple(ours) == tuple(theirs) and ours == theirs and hash(ours) == hash(theirs)
    assert ours._asdict() == theirs._asdict() and ours._fields == theirs._fields
    assert tuple(ours._replace(b="z")) == tuple(theirs._replace(b="z"))
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert pickle.loads(pickle.dumps(ours)) == ours and ours.twice == 2 * made[0]
    assert Ours(b="q", a=3) == (3, "q") and isinstance(ours, Ours)
    first, second = ours
    assert (first, second) == (ours.a, ours.b)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda kind: kind(),
        lambda kind: kind(1, "x", 2),
        lambda kind: kind(1, c=2),
        lambda kind: kind(1, a=2),
        lambda kind: kind(b="x"),
    ],
)
def test_it_refuses_what_typing_refuses(wrong: typing.Any) -> None:
    for kind in (Ours, Theirs):
        with pytest.raises(TypeError):
            wrong(kind)
    for kind in (Ours, Theirs):
        with pytest.raises(ValueError):
            kind(1)._replace(c=2)


def test_members_of_real_records() -> None:
    finding = Finding("gpu.xid", Verdict.FAIL, subject="0")
    assert finding.bad and finding.key == "gpu.xid|0" and finding.value is None
    assert State().sources == {} and State(passes=3).passes == 3


def test_a_pass_does_not_import_typing(tmp_path: Path) -> None:
    (tmp_path / "trainmaster").mkdir()
    (tmp_path / "trainmaster/__init__.py").touch()
    (tmp_path / "trainmaster/health").symlink_to(Path(__file__).parents[3] / "health")
    heavy = ("typing", "argparse", "pathlib", "subprocess", "dataclasses", "logging", "ctypes")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "import trainmaster.health.acting, trainmaster.health.history\n"
    code += f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "write `from trainmaster.health.record import Any` instead"
