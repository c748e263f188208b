"""What saving has cost, as it stands in the run folder and as people are told."""

from pathlib import Path

from trainmaster.launcher.follow.saving import facts_of, in_sentences, lines_of
from trainmaster.launcher.rank import saves
from trainmaster.launcher.rank.pace import Measured, Pace


def test_costs_are_added_up_over_restarts_and_roles(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    for cycle, folder in ((0, tmp_path), (1, tmp_path), (0, tmp_path / "trainer")):
        env = {"TRAINMASTER_RUN_DIR": str(folder), "TRAINMASTER_ATTEMPT": "0", "TRAINMASTER_CYCLE": str(cycle)}
        rank_0 = saves.Saves(env)
        rank_0.add(saves.LOAD, step=40, blocked_s=0.5, detail={"source": "memory" if cycle else "disk"})
        rank_0.add(saves.DISK, step=50, blocked_s=0.25, wrote_s=2.0, size_bytes=1 << 30)
        rank_0.add(saves.MEMORY, step=55, count=10, blocked_s=0.1, size_bytes=1 << 20)
    with (tmp_path / saves.FILE).open("a") as stream:
        stream.write('{"kind": "disk", "st')
    lines = lines_of(tmp_path, ("trainer",))
    facts = facts_of(lines)
    assert facts is not None
    assert facts["saves"] == {"count": 3, "blocked_s": 0.75, "wrote_s": 6.0, "size_bytes": 3 << 30}
    assert facts["memory_copies"]["count"] == 30
    assert [(one["cycle"], one["source"]) for one in facts["loads"]] == [(0, "disk"), (1, "memory"), (0, "disk")]
    assert in_sentences(facts) == [
        "3 checkpoints of 3 GiB together: training waited 0.8 s, 6.0 s were written beside it",
        "30 copies in memory of 3 MiB together: training waited 0.3 s",
        "loads: 3, of these from memory: 1; last after step 40 from the disk, loaded in 0.50 s",
    ]


def test_nothing_saved_is_nothing_told(tmp_path: Path) -> None:
    assert facts_of(lines_of(tmp_path)) is None
    saves.Saves({}).add(saves.DISK, step=1)
    assert list(tmp_path.iterdir()) == []


def test_the_interval_that_was_chosen_is_told_with_its_numbers(tmp_path: Path) -> None:
    from dataclasses import asdict

    measured = Measured()
    for step in range(1, 200):
        measured.step_done(step)
    measured.saved(0.5, 4.0)
    choice = Pace("auto", keep_every=0, before=None).choose(measured, {"TRAINMASTER_NODES": "n1,n2,n3"}, ())
    assert choice is not None and choice.nodes == 3 and (choice.cost_s, choice.write_s) == (0.5, 4.0)
    saves.Saves({"TRAINMASTER_RUN_DIR": str(tmp_path)}).add(saves.INTERVAL, step=10, detail=asdict(choice))
    facts = facts_of(lines_of(tmp_path))
    assert facts is not None and facts["interval"] == asdict(choice)
    assert f"a save every {choice.every} steps" in in_sentences(facts)[0] and "nodes: 3" in in_sentences(facts)[0]


def test_when_a_save_is_due() -> None:
    fixed = Pace(20, keep_every=0, before=None)
    assert [step for step in range(1, 61) if fixed.due(step)] == [20, 40, 60]
    assert not any(Pace(0, keep_every=0, before=None).due(step) for step in range(100))
    chosen = Pace("auto", keep_every=50, before=None)
    due = []
    for step in range(1, 120):
        if chosen.due(step):
            due.append(step)
            chosen.saved(step)
            # Decided while this one is written; the next save is the first to know it.
            chosen.decided = 30
    assert due == [10, 20, 50, 80, 100]
    chosen = Pace("auto", keep_every=0, before=25)
    chosen.loaded(100)
    assert next(step for step in range(101, 130) if chosen.due(step)) == 125
