"""The sbatch templates: what they say of themselves, what they become, and that no value in them is ever code."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import meta

from trainmaster import templates
from trainmaster.errors import TemplateError, UsageError
from trainmaster.launcher.submit.catalog import Template, get, listed, script
from trainmaster.launcher.submit.template_values import Variable

TRAIN = ("python", "train.py", "--lr", "1e-3")
# The values under which people have read what comes out.
VALUES: dict[str, dict[str, Any]] = {
    "array": {"command": TRAIN, "lines": "settings.txt", "tasks": 40, "at_once": 8, "gpus": 1, "time": "2h"},
    "array-grid": {"command": TRAIN, "grid": "lr=1e-3,1e-4 seed=0,1,2", "cpus_per_task": 4},
    "ddp": {"command": TRAIN, "nodes": 4, "spares": 1, "gpus_per_node": 8, "cpus_per_task": 12, "time": "2d"},
    "debug": {"nodes": 2, "idle": "2m", "gpus_per_node": "h100:8", "partition": "interactive"},
    "fsdp": {
        "command": TRAIN,
        "nodes": 16,
        "spares": 2,
        "gpus_per_node": 8,
        "modules": "cuda/12.4,nccl",
        "venv": "/v e",
    },
    "mpi": {"command": ("./solver", "--size", "10"), "nodes": 4, "tasks_per_node": 16, "cpus_per_task": 2},
    "preemptible": {"command": TRAIN, "gpus_per_node": 1, "time": "12h", "qos": "scavenge"},
    "roles": {
        "server_command": ("python", "server.py"),
        "trainer_command": TRAIN,
        "server_mem": "500G",
        "server_partition": "highmem",
        "trainer_gpus_per_node": 8,
        "trainer_partition": "gpu",
        "time": "1d",
    },
    "torchrun": {"command": TRAIN, "nodes": 4, "gpus_per_node": 8, "cpus_per_node": 96, "account": "lab"},
}
TEMPLATES = {template.name: template for template in listed()}
NAMES = tuple(TEMPLATES)


def rendered(template: str, /, **values: Any) -> str:
    return script(TEMPLATES[template], VALUES[template] | values)


def sbatch_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#SBATCH")]


def bash_accepts(text: str) -> bool:
    done = subprocess.run(["bash", "-n"], input=text.encode(), capture_output=True, check=False, timeout=60)
    return done.returncode == 0 and not done.stderr


# --- every template ---------------------------------------------------------------------------------------------------


def test_each_template_has_values_here():
    assert set(NAMES) == set(VALUES)


@pytest.mark.parametrize("name", NAMES)
def test_golden(name, golden):
    golden.check(f"templates/{name}.sbatch", rendered(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_one_that_bash_and_sbatch_can_read(name):
    text = rendered(name)
    assert text.startswith(f"#!/bin/bash\n# {name}: ") and text.endswith("\n") and "\n\n\n" not in text
    assert bash_accepts(text)
    assert max(map(len, text.splitlines())) <= 120
    lines = text.splitlines()
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_declared_is_what_is_used(name):
    template = TEMPLATES[name]
    environment = templates._script_environment()
    used: set[str] = set()
    for part in (template.path, *templates.parts_of(template.path)):
        used |= meta.find_undeclared_variables(environment.parse(part.read_text()))
    used -= set(environment.globals) | {"default_name", "signal_lead_s"}
    if template.kind == "supervised":
        used |= {"stop_grace_s"} & set(template.variables)
        used -= {"stop_grace_s"} - set(template.variables)
    assert used == set(template.variables)
    assert all(variable.help for variable in template.variables.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_values_are_enough(name):
    template = TEMPLATES[name]
    needed = {key: VALUES[name][key] for key, variable in template.variables.items() if variable.required}
    assert bash_accepts(script(template, needed))


# --- values are data --------------------------------------------------------------------------------------------------

HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "'$(touch pwned)'",
    "x\ntouch pwned\n",
    "x\n#SBATCH --nodes=100",
    "${IFS}; touch pwned",
    "& touch pwned &",
    "| touch pwned",
    "> pwned",
    "\\\n touch pwned",
    "{{ 7 * 7 }}{% raw %}",
)
TEXT_TYPES = ("line", "path", "words", "command")


def text_variables(template: Template) -> list[str]:
    return [name for name, variable in template.variables.items() if variable.type in TEXT_TYPES]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that a script would run, which do nothing but note the words that they were given."""
    folder = tmp_path_factory.mktemp("stubs")
    note = '#!/bin/bash\nprintf "%s\\0" "$0" "$@" >> said\n'
    for name in ("trainmaster", "torchrun", "program", "module", "scontrol", "scancel", "squeue", "sleep", "hostname"):
        (folder / name).write_text(note)
    (folder / "srun").write_text('#!/bin/bash\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


def run_with(stubs: Path, folder: Path, text: str) -> list[str]:
    """Run a script with the stubs; returns all words that they were given."""
    (folder / "settings.txt").write_text("first line\n")
    env = {"PATH": f"{stubs}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_NODEID": "0"}
    env |= {"SLURM_JOB_NODELIST": "n01", "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1", "HOME": str(folder)}
    subprocess.run(["bash"], input=text.encode(), cwd=folder, env=env, capture_output=True, check=False, timeout=60)
    said = folder / "said"
    return said.read_text().split("\0") if said.exists() else []


def is_taken(template: Template, variable: str, value: object) -> bool:
    """Whether a value gets into the script, or is refused."""
    try:
        rendered(template.name, **{variable: value})
    except TemplateError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_ever_run(name, stubs, tmp_path):
    template = TEMPLATES[name]
    for text in HOSTILE:
        values = {
            variable: ("program", text) if template.variables[variable].type == "command" else text
            for variable in text_variables(template)
        }
        taken = {variable: value for variable, value in values.items() if is_taken(template, variable, value)}
        made = rendered(name, **taken)
        assert not any("--nodes=100" in line for line in sbatch_lines(made))
        # The script ends where it does not find its environment, so it runs with and without.
        for more in ({}, {"venv": None}) if "venv" in template.variables else ({},):
            run_with(stubs, tmp_path, rendered(name, **(taken | more)))
            assert not (tmp_path / "pwned").exists(), f"{text!r} was run:\n{made}"


@pytest.mark.parametrize("name", [name for name in NAMES if TEMPLATES[name].command])
def test_the_program_gets_its_words_as_they_were_given(name, stubs, tmp_path):
    words = ["a b", "$HOME", "it's", '"', "\\", "", "*", "~", "-x", "ä"]
    said = run_with(stubs, tmp_path, rendered(name, command=("program", *words), venv=None))
    assert any(said[index : index + len(words)] == words for index in range(len(said))), said


anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
tricky = st.lists(st.sampled_from([*"'\"`$(){}[];&|<>\\#!*?~ \n\t\r%=,", "$(", "${", "x", "#SBATCH "])).map("".join)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_text_is_refused_or_quoted(name, data):
    template = TEMPLATES[name]
    variable = data.draw(st.sampled_from(text_variables(template)))
    text = data.draw(anything | tricky)
    value = data.draw(st.sampled_from([text, ("program", text)]))
    try:
        made = rendered(name, **{variable: value})
    except TemplateError as error:
        assert all(fault.startswith(variable) for fault in error.faults)
        return
    assert bash_accepts(made)
    plain = sbatch_lines(rendered(name, **{variable: "plain"}))
    assert [line.partition("=")[0] for line in sbatch_lines(made)] == [line.partition("=")[0] for line in plain]


# --- what is refused --------------------------------------------------------------------------------------------------


def faults(name: str, **values: Any) -> tuple[str, ...]:
    with pytest.raises(TemplateError) as raised:
        script(TEMPLATES[name], values)
    return raised.value.faults


def test_all_faults_are_told_at_once():
    found = faults("array", nodez=4, at_once="many", time="soon")
    assert len(found) == 6
    assert found[0].startswith("there is no variable 'nodez'") and "at_once" in found[0]
    assert [fault.partition(":")[0] for fault in found[1:]] == ["command", "lines", "tasks", "at_once", "time"]


def test_an_unknown_variable_names_the_one_that_may_be_meant():
    assert "'gpus_per_node' may be meant" in faults("ddp", gpu_per_node=8, command="a")[0]


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("ddp", {"nodes": 0}, "nodes: must be at least 1"),
        ("ddp", {"nodes": "1.5"}, "nodes: must be a whole number"),
        ("ddp", {"nodes": True}, "nodes: must be a whole number"),
        ("ddp", {"spares": -1}, "spares: must be"),
        ("ddp", {"gpus_per_node": "many"}, "gpus_per_node: must be a number"),
        ("ddp", {"mem": "lots"}, "mem: must be a size"),
        ("ddp", {"exclusive": "perhaps"}, "exclusive: must be true or false"),
        ("ddp", {"command": "python 'train.py"}, "command: could not be split"),
        ("ddp", {"command": ()}, "command: must not be empty"),
        ("ddp", {"command": ("a", "b\0c")}, "command: no word may hold"),
        ("ddp", {"venv": "$HOME/venv"}, "venv: stands as it is"),
        ("ddp", {"partition": "a\nb"}, "partition: must be one line"),
        ("ddp", {"checkpoint_signal_s": 300, "time": "5m"}, "is one at its start"),
        ("mpi", {"mpi": "openmpi"}, "mpi: must be one of pmix"),
        ("debug", {"idle": "1s"}, "idle: must be at least 3 s"),
        ("debug", {"idle": "soon"}, "idle: must be a time"),
        ("array-grid", {"grid": "lr"}, "grid: must be such as"),
        ("array-grid", {"grid": "lr=1 lr=2"}, "grid: names a parameter twice"),
        ("array-grid", {"grid": "$(x)=1"}, "grid: '$(x)' is not the name"),
    ],
)
def test_values_that_cannot_be_meant(name, values, words):
    assert words in faults(name, **(VALUES[name] | values))[0]


def test_there_is_no_such_template(tmp_path):
    with pytest.raises(UsageError, match=r"ddp, debug"):
        get("dpp")
    with pytest.raises(UsageError, match="is not there"):
        get(str(tmp_path / "mine.j2"))


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_numbers_mean_minutes_for_slurm_and_seconds_for_signals():
    text = rendered("ddp", time="90", checkpoint_signal_s="120")
    assert "#SBATCH --time=0-01:30:00" in text and "B:USR2@120" in text
    assert script(get("debug"), {"idle": 600}) == script(get("debug"), {"idle": "10m"})


def test_a_short_job_is_asked_for_its_checkpoint_in_its_last_quarter():
    assert "--signal=B:USR2@60" in rendered("ddp", time="4m")
    assert "--signal" not in rendered("ddp", checkpoint_signal_s=0)


def test_one_rank_may_have_all_gpus_of_its_node():
    assert "trainmaster run --tasks-per-node 1 -- " in rendered("ddp", tasks_per_node=1, spares=0)
    assert "--tasks-per-node" not in rendered("ddp", tasks_per_node=4).splitlines()[-1]


def test_a_grid_of_everything():
    text = rendered("array-grid", grid={"lr": ["1e-3", "1e-4"], "seed": [0, 1, 2]}, at_once=2)
    assert "#SBATCH --array=0-5%2\n" in text


@pytest.mark.parametrize("form", ["option", "assignment"])
def test_each_task_of_a_grid_has_its_own_combination(form, tmp_path):
    text = rendered("array-grid", command=("echo",), form=form)
    seen = []
    for task in range(6):
        env = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(task)}
        done = subprocess.run(["bash"], input=text, env=env, text=True, capture_output=True, check=True, timeout=60)
        seen.append(done.stdout.splitlines()[-1])
    assert len(set(seen)) == 6
    assert (seen[0], seen[5]) == {
        "option": ("--lr 1e-3 --seed 0", "--lr 1e-4 --seed 2"),
        "assignment": ("lr=1e-3 seed=0", "lr=1e-4 seed=2"),
    }[form]


# --- a template of one's own ------------------------------------------------------------------------------------------

MINE = """{#
summary = "mine"
kind = "plain"

[variables]
greeting = {default = "hello", help = "what to say"}
name = {required = true, help = "to whom"}
#}
{% set default_name = "mine" %}
#!/bin/bash
{% include "_options.j2" %}
echo {{ greeting }} {{ name }}
"""


def test_a_file_is_all_that_a_template_takes(tmp_path):
    path = tmp_path / "mine.sbatch.j2"
    path.write_text(MINE)
    mine = get(str(path))
    assert (mine.name, mine.summary, list(mine.variables)[:2]) == ("mine", "mine", ["greeting", "name"])
    text = script(mine, {"name": "you & me", "partition": "gpu"})
    assert text.endswith("echo hello 'you & me'\n") and "#SBATCH --partition=gpu\n" in text


def test_a_file_in_the_folder_is_listed(tmp_path, monkeypatch):
    for path in templates.path_of("job.sbatch").parent.glob("*.j2"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "mine.sbatch.j2").write_text(MINE)
    monkeypatch.setattr(templates, "_FOLDER", tmp_path)
    assert {template.name for template in listed()} == {*NAMES, "mine"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('summary = "mine"', "", "'summary' is missing"),
        ('"plain"', '"odd"', "kind must be one of"),
        ('"plain"', '"plain', "Illegal character"),
        ('default = "hello"', 'type = "int"', "there is no type 'int'"),
        ('default = "hello"', 'type = "count", default = "hello"', "its default: must be a whole number"),
        ('default = "hello"', 'standard = "hello"', "there is no standard"),
    ],
)
def test_a_header_with_a_fault(tmp_path, old, new, words):
    path = tmp_path / "mine.sbatch.j2"
    path.write_text(MINE.replace(old, new))
    with pytest.raises(TemplateError, match=re.escape(words)):
        get(str(path))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{{ nobody }}", "'nobody' is undefined"),
        ("{% if %}", "line 13: Expected"),
        ("{{ account }}", "would write None"),
    ],
)
def test_a_template_with_a_fault(tmp_path, line, words):
    path = tmp_path / "mine.sbatch.j2"
    path.write_text(MINE + line)
    with pytest.raises(TemplateError, match=words):
        script(get(str(path)), {"name": "you"})


def test_the_home_folder_of_nobody_is_a_fault_and_no_crash():
    path = Variable(name="lines", type="path")
    with pytest.raises(ValueError, match="a user who is not known here"):
        path.value("~0/lines.txt")
