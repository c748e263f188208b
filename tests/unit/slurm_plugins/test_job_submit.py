"""job_submit.lua under the interpreters that Slurm is built with, on a stub of what slurmctld offers."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from trainmaster.cli import main
from trainmaster.slurm_plugins import job_submit

STUB = Path(__file__).with_name("slurm_stub.lua")

# Three pods with 2, 4 and 4 free nodes; `high` has other features.
BODY = """\
pod tm-a
pod tm-b
pod tm-c
part batch gpu,ib 2,4,4
size 2 1;2;3
size 4 2;3
size 6 1,2
part high h200 0,4,4
size 4 2
ours 17 19
"""


def placements(body: str = BODY, *, made: int = 990, expires: int = 1050) -> str:
    head = f"trainmaster-placements 1 made={made} expires={expires}\n"
    return head + body + f"end {1 + body.count(chr(10))}\n"


@pytest.fixture(params=["lua5.1", "lua5.3"])
def lua(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not here; scripts/setup installs it")
    return str(request.param)


class Slurmctld:
    """The plug-in beside a file of placements."""

    def __init__(self, lua: str, folder: Path) -> None:
        self.lua, self.folder = lua, folder
        self.file = folder / "placements"
        self.site = folder / "job_submit.conf"
        self.plugin = folder / "job_submit.lua"
        self.plugin.write_text(job_submit.text(self.file, self.site))

    def run(self, script: str) -> list[str]:
        """What the lines of a script print."""
        test = self.folder / "test.lua"
        test.write_text(script)
        done = subprocess.run(
            [self.lua, STUB, self.plugin, test], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def submit(self, fields: str) -> str:
        return self.run(f"print(submit{{{fields}}})")[0]


@pytest.fixture
def slurmctld(lua: str, tmp_path: Path) -> Slurmctld:
    found = Slurmctld(lua, tmp_path)
    found.file.write_text(placements())
    return found


def test_a_job_prefers_the_pods_of_its_size(slurmctld: Slurmctld) -> None:
    assert slurmctld.submit("min_nodes=2, max_nodes=2") == "tm-a"
    assert slurmctld.submit("min_nodes=3") == "tm-b"
    assert slurmctld.submit("min_nodes=2, max_nodes=4") == "tm-b"
    assert slurmctld.submit("min_nodes=5") == "tm-a|tm-b"
    assert slurmctld.submit("min_nodes=4, partition='high', features='h200'") == "tm-b"


def test_what_was_given_out_is_gone_until_the_next_plan(slurmctld: Slurmctld) -> None:
    said = slurmctld.run("for _ = 1, 6 do print(submit{min_nodes=2}) end print(submit{min_nodes=4, partition='high'})")
    assert said == ["tm-a", "tm-b", "tm-b", "tm-c", "tm-c", "nil", "nil"]
    slurmctld.file.write_text(placements())
    new = placements(made=1001, expires=1060).replace("\n", "\\n")
    said = slurmctld.run(
        "print(submit{min_nodes=4}) print(submit{min_nodes=4}) print(submit{min_nodes=4})"
        f"local file = io.open('{slurmctld.file}', 'w') file:write('{new}') file:close() clock = clock + 1 "
        "print(submit{min_nodes=4})"
    )
    assert said == ["tm-b", "tm-c", "nil", "tm-b"]


LEFT_ALONE = (
    "min_nodes=1",
    "",
    "min_nodes=7",
    "min_nodes=2, partition='batch,high'",
    "min_nodes=2, partition='unknown'",
    "min_nodes=2, req_nodes='n01'",
    "min_nodes=2, reservation='maintenance'",
    "min_nodes=2, features='h200'",
    "min_nodes=2, features='gpu|cpu'",
    "min_nodes=2, features='[gpu]'",
    "min_nodes=2, features='gpu*2'",
    "min_nodes=2, exc_nodes='switch{a}'",
    "min_nodes=2, exc_nodes='n[01-'",
    "min_nodes=2, exc_nodes='n[1-999999999]'",
    "min_nodes=4, exc_nodes='n[01-03]'",
)


def test_a_job_that_is_not_ours_to_place_is_left_alone(slurmctld: Slurmctld) -> None:
    said = slurmctld.run("\n".join(f"print(submit{{{fields}}})" for fields in LEFT_ALONE))
    assert dict(zip(LEFT_ALONE, said, strict=True)) == dict.fromkeys(LEFT_ALONE, "nil")
    assert slurmctld.submit("min_nodes=2, prefer='h200'") == "h200"


def test_a_job_that_wants_no_place_gets_none_and_the_planner_is_told(slurmctld: Slurmctld) -> None:
    off = "spank_job_env={[0]='_SLURM_SPANK_OPTION_trainmaster_tm_placement=off', [1]='TRAINMASTER_PLACEMENT=off'}"
    auto = "spank_job_env={[0]='TRAINMASTER_PLACEMENT=auto'}"
    assert slurmctld.submit(f"min_nodes=2, {off}") == "nil"
    assert slurmctld.submit(f"min_nodes=2, {auto}") == "tm-a"
    said = slurmctld.run(
        f"for _, fields in ipairs{{ {{{off}}}, {{comment='mine', {off}}}, {{comment='mine', {auto}}} }} do "
        "local job = a_job(fields) slurm_job_submit(job, partitions, 1000) print(job.comment) end"
    )
    assert said == ["tm-placement=off", "mine tm-placement=off", "mine"]


def test_a_constraint_that_all_nodes_meet_and_few_excluded_nodes_are_no_hindrance(slurmctld: Slurmctld) -> None:
    assert slurmctld.submit("min_nodes=2, features='gpu&ib'") == "tm-a"
    # Both might be in pod a.
    assert slurmctld.submit("min_nodes=2, exc_nodes='n[01-02]'") == "tm-b"
    assert slurmctld.submit("min_nodes=3, exc_nodes='gpu07'") == "tm-b"
    assert slurmctld.submit("min_nodes=4, exc_nodes='gpu07'") == "nil"


def test_a_waiting_job_of_ours_that_changes_may_go_anywhere(slurmctld: Slurmctld) -> None:
    everything = "tm-a|tm-b|tm-c"
    said = slurmctld.run(
        "print(modify({min_nodes=8}, {job_id=17, min_nodes=4}))"
        "print(modify({partition='high'}, {job_id=19, min_nodes=4}))"
        "print(modify({features='h200'}, {job_id=19, min_nodes=4}))"
        "print(modify({min_nodes=8}, {job_id=19, min_nodes=4, features='gpu'}))"
        "print(modify({min_nodes=2}, {job_id=17, min_nodes=4}))"
        "print(modify({min_nodes=8}, {job_id=18, min_nodes=4}))"
        "print(modify({min_nodes=8, prefer='h200'}, {job_id=17, min_nodes=4}))"
    )
    assert said == [everything, everything, "h200", "gpu", "nil", "nil", "h200"]


def test_a_file_that_is_missing_old_or_of_another_kind_is_no_use_and_said_once(slurmctld: Slurmctld) -> None:
    tell = (
        "for _ = 1, 3 do print(submit{min_nodes=2}) clock = clock + 1 end "
        "for _, words in ipairs(logged) do print(words) end"
    )
    for text, word in (
        (placements(expires=1000), "out of date"),
        (placements(made=2000, expires=3000), "out of date"),
        (placements().replace("placements 1", "placements 2"), "of version 2"),
        ("", "torn"),
        ("hello\n", "not a file of placements"),
        ("\x00\xff" * 500, "torn"),
    ):
        slurmctld.file.write_text(text)
        said = slurmctld.run(tell)
        assert said[:3] == ["nil"] * 3 and len(said) == 4 and word in said[3]
    slurmctld.file.unlink()
    said = slurmctld.run(tell)
    assert said[:3] == ["nil"] * 3 and len(said) == 4 and "is not there" in said[3]


def test_a_file_that_comes_and_goes_is_seen(slurmctld: Slurmctld) -> None:
    path = slurmctld.file
    said = slurmctld.run(
        f"os.rename('{path}', '{path}.x') print(submit{{min_nodes=2}}) os.rename('{path}.x', '{path}')"
        "print(submit{min_nodes=2}) clock = clock + 1 print(submit{min_nodes=2}) "
        "clock = 1050 print(submit{min_nodes=2})"
        "print(#logged)"
    )
    assert said == ["nil", "nil", "tm-a", "nil", "3"]


def test_no_torn_or_damaged_file_is_an_error(slurmctld: Slurmctld) -> None:
    whole = placements()
    damaged = [whole[:length] for length in range(0, len(whole) - 1, 7)]
    dice = random.Random(7)
    for _ in range(40):
        at = dice.randrange(len(whole))
        damaged.append(whole[:at] + dice.choice("0;,9-x \n%") + whole[at + 1 :])
    folder = slurmctld.folder / "damaged"
    folder.mkdir()
    for number, text in enumerate(damaged):
        (folder / str(number)).write_text(text)
    said = slurmctld.run(
        f"for number = 0, {len(damaged) - 1} do os.rename('{folder}/' .. number, '{slurmctld.file}') clock = clock + 1 "
        "submit{min_nodes=2} submit{min_nodes=6, exc_nodes='n[1-2]'} "
        "modify({min_nodes=8}, {job_id=17, min_nodes=4}) end "
        "for _, words in ipairs(logged) do if words:match('failed') then print(words) end end print('end')"
    )
    assert said == ["end"]
    # Cut short anywhere, it is not used at all.
    slurmctld.file.write_text(whole[: len(whole) // 2])
    assert slurmctld.submit("min_nodes=2") == "nil"


def test_a_policy_that_fails_costs_nobody_a_job(slurmctld: Slurmctld) -> None:
    said = slurmctld.run("io.open = function() error('boom') end print(submit{min_nodes=2}) print(submit{min_nodes=2})"
                         "print(#logged) for _, words in ipairs(logged) do print(words) end")  # fmt: skip
    assert said[:2] == ["nil", "nil"] and said[2] == "2"
    assert "time-limit-from-nodes failed" in said[3] and "keep_to_pods failed" in said[4]


def test_it_is_installed_with_its_path_and_never_over_a_sites_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "job_submit.lua"
    words = ["install", "job-submit", f"--output={output}", f"--placements={tmp_path}/placements"]
    assert main([*words, "--dry-run"]) == 0 and not output.exists()
    assert main(words) == 0
    assert capsys.readouterr().out.count("JobSubmitPlugins=lua\n# A list") == 2
    assert output.read_text() == job_submit.text(tmp_path / "placements")
    assert f'local PLACEMENTS = "{tmp_path}/placements"' in output.read_text()
    assert main([*words, "--json"]) == 0 and '"changed": false' in capsys.readouterr().out
    output.write_text("function slurm_job_submit() return slurm.SUCCESS end\n")
    assert main(words) == 1 and "slurm_job_submit" in output.read_text()
    assert main([*words[:-1], "--placements=relative"]) == 1


SHARES = "for _, f in ipairs{{ {} }} do local job = a_job(f) assert(slurm_job_submit(job, partitions, 1) == 0) " \
    "print(job.cpus_per_tres, job.mem_per_tres, job.requeue) end"  # fmt: skip


def test_without_a_site_file_nothing_else_is_done(slurmctld: Slurmctld) -> None:
    assert slurmctld.run(SHARES.format("{tres_per_node='gres:gpu:8', min_nodes=64}")) == ["nil\tnil\t65534"]


def test_gpus_bring_their_share_of_cpus_and_memory_unless_something_is_said(slurmctld: Slurmctld) -> None:
    slurmctld.site.write_text("cpus-per-gpu = 12 # of 96\nmem-per-gpu=2G\n\n# requeue = yes\n")
    jobs = {
        "{tres_per_node='gres:gpu:8'}": "gres:gpu:12\tgres:gpu:2048",
        "{tres_per_job='license:x,gres/gpu:h100:8'}": "gres/gpu:12\tgres/gpu:2048",
        "{tres_per_task='gres:gpu'}": "gres:gpu:12\tgres:gpu:2048",
        "{tres_per_node='gres:gpu:8', cpus_per_task=4}": "nil\tgres:gpu:2048",
        "{tres_per_node='gres:gpu:8', cpus_per_tres='gres:gpu:1', min_mem_per_node=0}": "gres:gpu:1\tnil",
        "{tres_per_node='gres:gpu:8', min_mem_per_cpu=10}": "gres:gpu:12\tnil",
        "{tres_per_node='gres:gpu:8', mem_per_tres='gres:gpu:7'}": "gres:gpu:12\tgres:gpu:7",
        "{tres_per_node='gres:gpu:8', shared=0}": "nil\tnil",
        "{tres_per_node='gres:gpumem:8'}": "nil\tnil",
        "{}": "nil\tnil",
    }
    said = slurmctld.run(SHARES.format(", ".join(jobs)))
    assert dict(zip(jobs, said, strict=True)) == {job: f"{words}\t65534" for job, words in jobs.items()}


def test_who_says_nothing_of_requeue_gets_the_sites(slurmctld: Slurmctld) -> None:
    for word, number in (("yes", "1"), ("no", "0")):
        slurmctld.site.write_text(f"requeue = {word}\n")
        said = slurmctld.run(SHARES.format("{}, {requeue=0}, {requeue=1}"))
        assert [line.split()[-1] for line in said] == [number, "0", "1"]


def test_who_is_refused_reads_what_to_do_and_takes_no_place(slurmctld: Slurmctld) -> None:
    slurmctld.site.write_text("time-limit-from-nodes = 2\ngpu-partitions = gpu, batch\n")
    gpus = "tres_per_node='gres:gpu:8'"
    said = slurmctld.run(
        f"print(refused{{min_nodes=2, {gpus}}}) print(refused{{min_nodes=2, time_limit=60}})"
        f"print(refused{{partition='other,gpu'}}) print(refused{{partition='other'}})"
        f"print(refused{{min_nodes=1, {gpus}}}) print(submit{{min_nodes=2, time_limit=60, {gpus}}})"
    )
    assert said[0] == (
        "trainmaster: a job of 2 nodes needs a time limit here (from 2 nodes on): add --time, such as --time=24:00:00"
    )
    assert said[1] == (
        "trainmaster: partition batch is for jobs with GPUs: add --gpus-per-node, or choose another by --partition"
    )
    assert "partition gpu is for" in said[2] and said[3:5] == ["accepted"] * 2
    assert said[5] == "tm-a", "the jobs that were refused have taken nothing"


def test_a_damaged_site_file_is_told_once_and_refuses_nobody(slurmctld: Slurmctld) -> None:
    slurmctld.site.write_text(
        "cpus-per-gpus = 1\ntime-limit-from-nodes = many\nmem-per-gpu = 1T\ngpu-partitions =\nhello\nrequeue = yes\n"
    )
    said = slurmctld.run(
        "for _ = 1, 3 do print(refused{min_nodes=9}) clock = clock + 1 end "
        "for _, words in ipairs(logged) do if words:find('conf', 1, true) then print(words) end end"
    )
    assert said[:3] == ["accepted"] * 3 and len(said) == 4
    for words in (
        "cpus-per-gpus is unknown",
        "time-limit-from-nodes has to be a whole number",
        "mem-per-gpu has to be a size such as 120G",
        "gpu-partitions has to be names of partitions",
        "a line that is not `key = value`",
        "What else it says holds",
    ):
        assert words in said[3]
    slurmctld.site.unlink()
    slurmctld.site.mkdir()
    assert slurmctld.run("print(refused{min_nodes=9})") == ["accepted"]


def test_what_the_site_says_now_holds_from_the_next_second(slurmctld: Slurmctld) -> None:
    said = slurmctld.run(
        "print(refused{min_nodes=2}) "
        f"local file = io.open('{slurmctld.site}', 'w') file:write('time-limit-from-nodes = 2\\n') file:close() "
        f"clock = clock + 1 print(refused{{min_nodes=2}}) os.remove('{slurmctld.site}') "
        "clock = clock + 1 print(refused{min_nodes=2})"
    )
    assert said[0] == said[2] == "accepted" and "needs a time limit" in said[1]
