"""The figures and scripts of benchmarks/recovery.py, without a cluster."""

from pathlib import Path

from measure.recovery_figures import GOALS, above_floor, collect
from measure.strike import FAULTS, Measured
from peers import elastic_torchrun, nvrx, plain_sbatch
from peers.table import PEERS
from peers.work import Work

WORK = Work(folder=Path("/shared/run"), checkpoint_every=10, collective_timeout_s=30.0)


def test_figures_have_the_promised_names():
    done = [
        Measured(peer="trainmaster", fault="node_death", recovered_s=2.0, lost_steps=5),
        Measured(peer="sbatch_tuned", fault="node_death", recovered_s=60.0, lost_steps=4),
        Measured(peer="submitit_production", fault="node_death", note="no new step within 1200 s"),
    ]
    found = collect(done)
    assert found["trainmaster_node_death_s"] == 2.0
    assert found["ratio_sbatch_tuned_to_trainmaster_node_death"] == 30.0
    assert found["submitit_production_node_death_s"] is None
    assert found["ratio_submitit_production_to_trainmaster_node_death"] is None
    assert found["submitit_production_node_death_note"] == "no new step within 1200 s"


def test_every_goal_is_about_a_figure_that_is_measured():
    done = [Measured(peer=peer.name, fault=fault, recovered_s=1.0) for peer in PEERS for fault in FAULTS]
    assert set(GOALS) <= set(collect(done))


def test_trainmaster_is_held_against_the_warm_floor_and_the_others_against_the_cold():
    found = above_floor(
        {
            "trainmaster_rank_crash_s": 1.0,
            "torchrun_rank_crash_s": 10.0,
            "floor_warm_total_s": 0.25,
            "floor_cold_total_s": 4.0,
        }
    )
    assert found == {"trainmaster_rank_crash_above_floor_s": 0.75, "torchrun_rank_crash_above_floor_s": 6.0}


def test_all_peers_train_the_same_thing():
    scripts = [
        plain_sbatch.script(WORK, host="10.0.0.1", port=20000),
        elastic_torchrun.script(WORK, host="10.0.0.1", port=20000, tuned=True),
        elastic_torchrun.script(WORK, host="10.0.0.1", port=20000, tuned=False),
        nvrx.script(WORK, host="10.0.0.1", port=20000),
    ]
    for script in scripts:
        assert " ".join(WORK.words) in script


def test_each_peer_asks_slurm_for_what_it_needs():
    plain = plain_sbatch.script(WORK, host="10.0.0.1", port=20000)
    assert "#SBATCH --requeue" in plain and "--kill-on-bad-exit=1" in plain and "scontrol requeue" in plain
    elastic = elastic_torchrun.script(WORK, host="10.0.0.1", port=20000, tuned=False)
    assert "#SBATCH --no-kill" in elastic and "srun --no-kill" in elastic and "--nnodes=4:5" in elastic
    assert "last_call_timeout" not in elastic
