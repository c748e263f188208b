"""What the documents tell people to type, typed."""

import re
import shlex
from pathlib import Path

import pytest

from trainmaster import cli
from trainmaster.launcher.submit.catalog import get, script

DOCS = Path(__file__).parents[3] / "docs"


def typed(page: str) -> list[str]:
    """Each `trainmaster template render` of a page, without what the shell does with its output."""
    text = (DOCS / page).read_text().replace("\\\n", " ")
    lines = re.findall(r"^\$ trainmaster template (render .*)$", text, re.MULTILINE)
    return [re.split(r" > | && |  # ", line.replace("$(wc -l < settings.txt)", "12"))[0] for line in lines]


@pytest.mark.parametrize("line", [*typed("templates.md"), *typed("from-sbatch.md")])
def test_the_command_does_what_the_page_says(line, capsys):
    code = cli.main(["template", *shlex.split(line)])
    done = capsys.readouterr()
    if "nodez" in line:
        assert code == 2
        for told in re.findall(r"^  - (\w+): .*$", (DOCS / "templates.md").read_text(), re.MULTILINE):
            assert f"  - {told}: " in done.err
    else:
        assert code == 0, done.err
        assert done.out.startswith("#!/bin/bash\n")


def test_the_list_is_the_one_of_the_page(capsys):
    assert cli.main(["template", "list"]) == 0
    assert capsys.readouterr().out in (DOCS / "templates.md").read_text()


def test_the_template_of_the_page_can_be_rendered(tmp_path):
    (text,) = re.findall(r"```jinja\n(.*?)```", (DOCS / "templates.md").read_text(), re.DOTALL)
    path = tmp_path / "nightly.sbatch.j2"
    path.write_text(text)
    assert script(get(str(path)), {"model": "a b.pt"}).endswith("srun python evaluate.py 'a b.pt'\n")
