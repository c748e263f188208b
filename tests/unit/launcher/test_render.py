"""The sbatch text, compared with files that people have read."""

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.submit.render import render
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.templates.shell import quote

SPECS = {
    "smallest": JobSpec(),
    "everything": JobSpec(
        name="llama 7b",
        nodes=16,
        spares=2,
        gpus_per_node=8,
        cpus_per_task=12,
        mem="900GB",
        time="2d",
        partition="gpu",
        account="lab",
        qos="high",
        reservation="friday",
        constraint="h100&ib",
        exclude="n[01-02],n07",
        exclusive=True,
        checkpoint_signal_s=300,
        setup=("module load cuda", 'export DATA="$HOME/data"'),
        sbatch={"mail_type": "END,FAIL", "comment": 'it\'s "big" \\ bigger', "contiguous": True, "segment": 8},
        python="/opt/python 3/bin/python",
    ),
    "no-signal": JobSpec(nodes=2, time=30, checkpoint_signal_s=0),
    "odd-gpus": JobSpec(gpus_per_node="a100:3", tasks_per_node=6, cpus_per_task=2, mem=4096, exclusive="user"),
}


@pytest.mark.parametrize("name", SPECS)
def test_golden(name, golden):
    folder, python = Path("/shared/jobs/20261123-070000-abcdef"), SPECS[name].python or "/venv/bin/python"
    golden.check(f"launcher/{name}.sbatch", render(SPECS[name], name="train", run_dir=folder, python=python))


def test_a_path_with_percent_signs_blanks_and_quotes_stays_itself():
    text = render(JobSpec(), name="x", run_dir=Path('/a b/50%j/it\'s "odd"'), python="/usr/bin/python3")
    assert '#SBATCH --output="/a b/50%%j/it\'s \\"odd\\"/batch.out"' in text
    assert shlex.split(text.splitlines()[-1])[-1] == '/a b/50%j/it\'s "odd"'


def _as_sbatch_reads(text: str) -> str:
    """sbatch's own rules for a word of an #SBATCH line (slurm 22.05, sbatch.c and opt.c: _get_argument)."""
    if text.startswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="\x7f"), min_size=1))
def test_quotes_are_undone_by_sbatch(text):
    assert _as_sbatch_reads(quote(text)) == text


def test_options_stand_before_the_first_command():
    lines = render(SPECS["everything"], name="x", run_dir=Path("/x"), python="p").splitlines()
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])
