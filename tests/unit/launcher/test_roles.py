"""What may be asked of roles, and how they act on one another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainmaster.errors import SpecError
from trainmaster.launcher.container import Container
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.roles import role_plan
from trainmaster.launcher.roles.role import Role, draft_roles
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.submit.render import render_roles
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.submission import Part
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.interplay import cycle_in, is_done, overall, put_back_with, unmet

TRUE = ["/bin/true"]


def faults(**roles: Role) -> str:
    with pytest.raises(SpecError) as raised:
        draft_roles(roles, name="job", folder=Path("jobs"))
    return "\n".join(raised.value.faults)


def test_every_fault_of_every_role_is_named_at_once() -> None:
    text = faults(
        a=Role(target=TRUE, after=("nobody",), restart="sometimes", spec=JobSpec(nodes=0)),
        b=Role(target=TRUE, rolls_back=("a",), spec=JobSpec(time="1h", setup=("module load x",))),
        key=Role(target=TRUE, ready="soon"),
    )
    assert "role 'a': restart must be one of gang, alone, rollback, it is 'sometimes'" in text
    assert "role 'a': after names 'nobody'; the roles are a, b, key" in text
    assert "role 'a': nodes must be at least 1, it is 0" in text
    assert "role 'b': rolls_back counts only with" in text
    assert "role 'b': setup lines run once, for all roles; give them to the first role, 'a'" in text
    assert "role 'b': the job has one time limit" in text
    assert "role 'key': the job's folder has files of that name" in text
    assert "role 'key': ready must be one of registered, running" in text


def test_roles_that_could_never_start_or_end_are_refused() -> None:
    circle = faults(a=Role(target=TRUE, after=("b",)), b=Role(target=TRUE, after=("a",)))
    assert "the roles 'a', 'b' wait for one another" in circle
    services = faults(a=Role(target=TRUE, service=True), b=Role(target=TRUE, service=True))
    assert "all roles are services" in services
    assert "at least two" in faults(a=Role(target=TRUE))
    assert "without any it is" in faults(a=Role(target=TRUE, restart="rollback"), b=Role(target=TRUE))


def test_the_ranks_of_a_role_are_started_by_agents() -> None:
    inside = JobSpec(container=Container(image="a.sif"))
    text = faults(a=Role(target=TRUE, spec=JobSpec(mpi="pmix")), b=Role(target=print, spec=inside))
    assert "role 'a': agents start the ranks of a role, the runner cannot be 'mpi'" in text
    assert "role 'b': a callable cannot run in a container" in text


def test_stop_and_check_is_refused_where_ranks_of_a_role_always_run() -> None:
    checked = JobSpec(diagnose="on_suspicion")
    alone = Role(target=TRUE, restart="alone", spec=checked)
    text = faults(a=alone, b=Role(target=TRUE, spec=checked), c=Role(target=TRUE, spec=JobSpec(nodes=0)))
    assert "role 'a': diagnose looks at the nodes of a role while none of its ranks runs" in text
    assert "role 'b'" not in text


def test_a_runner_that_is_only_a_default_is_not_taken_for_roles_either(tmp_path: Path, monkeypatch: Any) -> None:
    """It was found after the roles had been judged, and their agents started nothing."""
    own = tmp_path / "trainmaster" / "config.toml"
    own.parent.mkdir()
    own.write_text('[job]\nrunner = "srun"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = faults(a=Role(target=TRUE), b=Role(target=TRUE, spec=JobSpec(runner="agent")))
    assert "role 'a': agents start the ranks of a role, the runner cannot be 'srun', from your defaults" in text
    assert "role 'b'" not in text


def test_the_script_has_a_component_for_each_role(tmp_path: Path) -> None:
    made = draft_roles(
        {
            "loader": Role(
                target=TRUE,
                restart="alone",
                service=True,
                spec=JobSpec(partition="cpu", nodes=2, spares=1, tasks_per_node=3, cpus_per_task=2, time="1h"),
            ),
            "trainer": Role(
                target=TRUE, after=("loader",), spec=JobSpec(partition="gpu", gpus_per_node=4, cpus_per_task=2)
            ),
        },
        name="both",
        folder=tmp_path,
    )
    first, second = made.script.split("#SBATCH hetjob\n")
    assert {"#SBATCH --job-name=both", "#SBATCH --ntasks-per-node=3", "#SBATCH --cpus-per-task=2"} < set(
        first.splitlines()
    )
    assert {"#SBATCH --nodes=3", "#SBATCH --signal=B:USR2@90", "#SBATCH --open-mode=append"} < set(first.splitlines())
    assert {
        "#SBATCH --job-name=both.trainer",
        "#SBATCH --partition=gpu",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --time=0-01:00:00",
        "#SBATCH --no-kill",
        "#SBATCH --requeue",
    } < set(second.splitlines())
    assert "--output" not in second and "--signal" not in second
    assert made.plan.roles == ("loader", "trainer")
    assert [part.plan.run_dir for part in made.parts] == [f"{made.run_dir}/loader", f"{made.run_dir}/trainer"]
    assert made.parts[0].plan.agent_per_rank and not made.parts[1].plan.agent_per_rank


def test_role_plans_come_back_as_they_were_written(tmp_path: Path) -> None:
    roles = (
        RolePlan(name="ps", replicas=2, restart="rollback", rolls_back=("t",), service=True),
        RolePlan(name="t", replicas=4, after=("ps",), ready_timeout_s=5.0),
    )
    role_plan.write(tmp_path, roles)
    assert role_plan.read(tmp_path) == roles
    assert role_plan.read(tmp_path / "elsewhere") == ()


def test_who_waits_for_whom() -> None:
    role = RolePlan(name="t", replicas=1, after=("ps", "loader"))
    assert unmet(role, {"ps"}) == ("loader",)
    assert unmet(role, {"ps", "loader", "t"}) == ()
    assert cycle_in({"a": (), "b": ("a",), "c": ("a", "b")}) == ()


def test_putting_back_reaches_those_whose_state_belongs_together() -> None:
    roles = {
        "ps": RolePlan(name="ps", replicas=1, restart="rollback", rolls_back=("t",)),
        "t": RolePlan(name="t", replicas=1, restart="rollback", rolls_back=("ps", "x")),
        "x": RolePlan(name="x", replicas=1),
    }
    assert put_back_with("ps", roles) == ("t", "x")
    assert put_back_with("x", roles) == ()


def test_the_job_is_done_when_all_but_services_are() -> None:
    roles = (RolePlan(name="t", replicas=2), RolePlan(name="ps", replicas=1, service=True))
    assert not is_done(roles, {"t": 1, "ps": 1})
    assert is_done(roles, {"t": 2})


def test_one_written_checkpoint_speaks_for_all() -> None:
    end = Decision(action=Action.END, cause="timeout", state="TIMED_OUT")
    requeue = Decision(action=Action.REQUEUE, cause="timeout")
    done = Decision(action=Action.SUCCEED, cause="program", state="SUCCEEDED")
    assert overall([end, requeue, done]) == requeue
    assert overall([done, end]) == end


def test_a_plan_without_roles_reads_as_before(tmp_path: Path) -> None:
    assert Plan(uid="u", name="n", run_dir=str(tmp_path), python="python", nodes=1).roles == ()


def test_golden(golden: Any) -> None:
    specs = {
        "embedding": JobSpec(
            partition="highmem", nodes=2, spares=1, mem="900G", time="2d", cpus_per_task=16, setup=("module load cuda",)
        ),
        "loader": JobSpec(partition="cpu", nodes=4, tasks_per_node=8, cpus_per_task=2, time="2d"),
        "trainer": JobSpec(partition="gpu", nodes=16, spares=1, gpus_per_node=8, cpus_per_task=12, time="2d"),
    }
    parts = [
        Part(
            spec=replace(spec, setup=()),
            plan=Plan(
                uid="1",
                name=name,
                run_dir=f"/jobs/1/{name}",
                python="/opt/bin/python",
                nodes=spec.nodes,
                tasks_per_node=spec.ranks_per_node,
                agent_per_rank=name == "loader",
            ),
        )
        for name, spec in specs.items()
    ]
    text = render_roles(
        parts,
        name="recommender",
        run_dir=Path("/jobs/1"),
        python="/opt/bin/python",
        setup=specs["embedding"].setup,
        secrets_file=Path("/jobs/1/secrets.sh"),
    )
    golden.check("launcher/hetjob.sbatch", text)
