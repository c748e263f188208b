"""The walk of docs/operating.md, from nothing to the first train: its own commands and files, as they stand there."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DOC = Path(__file__).parents[2] / "docs" / "operating.md"
LIMIT_S = 420.0

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def section(title: str) -> str:
    return DOC.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def files(text: str) -> dict[str, str]:
    """By name, the files that the document shows: each says what it is called in a comment of its own."""
    found = {}
    for block in blocks(text, "toml", "bash"):
        name = re.search(r"^# (\S+\.(?:toml|sh))$", block, flags=re.MULTILINE)
        assert name is not None, block
        found[name[1]] = block
    return found


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each command with the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks(text, "console")).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip() not in ("", "…"):
            found[-1][1].append(line)
    return found


def pattern(line: str) -> str:
    """A line as it is shown: `…` is for anything, and how wide a column is does not matter."""
    return ".*".join(re.escape(" ".join(part.split())) for part in line.split("…"))


def test_every_command_of_the_walk_does_what_the_document_shows(tmp_path: Path) -> None:
    text = section("From nothing to the first train")
    walk = commands(text)
    assert len(walk) > 20
    for name, content in files(text).items():
        (tmp_path / name).write_text(content)
    # A lab of its own, since another test may be on the same walk.
    name = f"walk{os.getpid()}"
    lines = ["set -e"]
    for number, (command, _) in enumerate(walk):
        lines += [f"echo '@@{number}'", command.replace("--name walk", f"--name {name}")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path}
    with (tmp_path / "shown").open("w") as shown:
        process = subprocess.Popen(
            ["bash", "-c", "\n".join(lines)],
            cwd=tmp_path,
            env=env,
            stdout=shown,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            subprocess.run(
                [sys.executable, "-m", "trainmaster", "lab", "down", "--name", name], capture_output=True, check=False
            )
    seen = (tmp_path / "shown").read_text()
    assert code == 0, seen
    said = dict(re.findall(r"^@@(\d+)\n(.*?)(?=^@@|\Z)", seen, flags=re.MULTILINE | re.DOTALL))
    for number, (command, expected) in enumerate(walk):
        printed = [" ".join(line.split()) for line in said[str(number)].splitlines()]
        for line in expected:
            wanted = pattern(line).strip()
            assert any(re.fullmatch(wanted, one) for one in printed), f"{command}: {line!r} is not in {printed}"
