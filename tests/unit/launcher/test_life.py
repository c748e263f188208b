"""The life of a job as rows, and what each fault cost."""

from trainmaster.launcher.follow.life import cycles_of, lost_by_cause, lost_s
from trainmaster.launcher.follow.progress import line_of
from trainmaster.launcher.record import Event


def event(at_s, state, cycle=0, attempt=0, **values):
    return Event(epoch_s=float(at_s), job_id=12, attempt=attempt, cycle=cycle, state=state, **values)


NODES = ("n01", "n02")
FAILURE = {"rank": 1, "node": "n02", "exit_code": 1, "traceback": "Traceback\nValueError: boom\n", "log": "/x"}
LIFE = (
    event(0, "SUBMITTED"),
    event(1, "STARTING"),
    event(2, "RUNNING", nodes=NODES, spares=("n03",), ranks=2),
    event(5, "PROGRESS", nodes=NODES, step=0, detail={"first_step_epoch_s": 4.5}),
    event(
        20, "RESTARTING", nodes=NODES, step=9, cause="rank_crash", detail={"fault_epoch_s": 19.5, "failure": FAILURE}
    ),
    event(20.5, "RUNNING", cycle=1, nodes=NODES, spares=("n03",), step=9),
    event(21, "RESTARTING", cycle=1, nodes=NODES, step=9, cause="rank_crash", detail={"fault_epoch_s": 20.9}),
    event(21.5, "RUNNING", cycle=2, nodes=NODES, step=9),
    event(22, "PROGRESS", cycle=2, nodes=NODES, step=10, detail={"first_step_epoch_s": 22.5}),
    event(29, "NODE_LOST", cycle=2, nodes=NODES, dead=("n02",), cause="node_death"),
    event(30, "REQUEUED", cycle=2, nodes=NODES, dead=("n02",), step=15, cause="node_death"),
    event(33, "STARTING", attempt=1),
    event(34, "RUNNING", attempt=1, nodes=("n01", "n04")),
    event(35, "PROGRESS", attempt=1, nodes=("n01", "n04"), step=16),
    event(40, "SUCCEEDED", attempt=1, nodes=("n01", "n04"), step=20, cause="program"),
)


def test_one_row_a_cycle():
    rows = cycles_of(LIFE)
    assert [(row.attempt, row.cycle, row.state, row.cause, row.step) for row in rows] == [
        (0, 0, "RESTARTING", "rank_crash", 9),
        (0, 1, "RESTARTING", "rank_crash", 9),
        (0, 2, "REQUEUED", "node_death", 15),
        (1, 0, "SUCCEEDED", "program", 20),
    ]
    assert rows[0].failure == FAILURE
    assert rows[2].dead == ("n02",)
    assert rows[0].spares == ("n03",)


def test_an_interruption_lasts_until_there_is_a_step_again():
    rows = cycles_of(LIFE)
    # Cycle 1 broke before its first step, so cycle 2 ends what began in cycle 0.
    assert [row.lost_s for row in rows] == [None, None, 3.0, 5.0]
    assert lost_s(rows) == 8.0


def test_what_was_lost_is_put_down_to_the_cause_that_began_it():
    assert lost_by_cause(cycles_of(LIFE)) == {"node_death": 5.0, "rank_crash": 3.0}


def test_why_a_cycle_ended_in_words():
    assert cycles_of(LIFE)[0].why == "rank_crash, rank 1 on n02, exit code 1"
    detail = {"cancelled_by": "not by trainmaster"}
    assert cycles_of([event(2, "CANCELLED", cause="user", detail=detail)])[0].why == "user, not by trainmaster"
    detail = {"requeued_by": "alice", "reason": "new data"}
    assert cycles_of([event(2, "REQUEUED", cause="requeue", detail=detail)])[0].why == "requeue, by alice, 'new data'"


def test_a_program_without_steps_is_back_when_its_ranks_are():
    life = [entry for entry in LIFE if entry.state != "PROGRESS"]
    assert [row.lost_s for row in cycles_of(life)] == [None, 1.0, 0.6000000000000014, 4.0]


def test_an_attempt_that_came_to_nothing_has_a_row():
    (row,) = cycles_of([event(0, "SUBMITTED"), event(1, "STARTING"), event(2, "CANCELLED", cause="user")])
    assert (row.state, row.running_s, row.ended_s) == ("CANCELLED", None, 2.0)
    assert cycles_of([event(0, "SUBMITTED")]) == ()


def test_a_job_cancelled_while_it_waits_after_a_requeue_has_no_row_more():
    cancelled = event(50, "CANCELLED", cause="user", detail={"cancelled_by": "bob"}, cycle=2)
    (*_, row) = rows = cycles_of([*LIFE[:11], cancelled])
    assert len(rows) == 3
    assert (row.state, row.why) == ("REQUEUED", "node_death, then CANCELLED, by bob")
    ended = [*LIFE, event(45, "REQUEUED", attempt=1, cause="requeue", detail={"requeued_by": "al"})]
    rows = cycles_of([*ended, event(50, "CANCELLED", attempt=1, cause="user", detail={"cancelled_by": "bob"})])
    assert len(rows) == 4
    assert rows[-1].why == "program, requeued by al, then CANCELLED, by bob"


def test_a_lost_job_ends_the_row_of_its_last_cycle():
    rows = cycles_of([*LIFE[:4], event(100, "LOST")])
    assert [(row.cycle, row.state) for row in rows] == [(0, "LOST")]


def test_lines_of_progress():
    assert line_of(LIFE[2]) == "0.0  RUNNING  2 ranks on n01,n02  spare n03"
    assert line_of(LIFE[4]) == "0.0  RESTARTING  rank_crash  rank 1 on n02: ValueError: boom  step 9"
    assert line_of(LIFE[10]) == "0.2  REQUEUED  node_death  lost n02  step 15"
    many = event(0, "RUNNING", nodes=tuple(f"n{number}" for number in range(100)), ranks=800)
    assert line_of(many).endswith("800 ranks on n0,n1,n2 and 97 more")


def role(at_s, state, name, cycle=0, replica=None, **values):
    return event(at_s, state, cycle=cycle, role=name, replica=replica, **values)


ROLES = (
    event(0, "SUBMITTED"),
    event(1, "STARTING"),
    role(2, "RUNNING", "ps", nodes=("hm01",)),
    role(2, "RUNNING", "loader", replica=0, nodes=("c1",)),
    role(2, "RUNNING", "loader", replica=1, nodes=("c1",)),
    role(3, "RUNNING", "trainer", nodes=NODES),
    role(5, "RESTARTING", "loader", replica=1, cause="rank_crash", detail={"fault_epoch_s": 4.9}),
    role(6, "RUNNING", "loader", cycle=1, replica=1, nodes=("c1",)),
    role(10, "RESTARTING", "ps", cause="rank_crash", detail={"fault_epoch_s": 9.5}),
    role(10, "RESTARTING", "trainer", cause="rollback"),
    role(10.5, "RUNNING", "ps", cycle=1, nodes=("hm01",)),
    role(12, "RUNNING", "trainer", cycle=1, nodes=NODES),
    role(20, "FINISHED", "trainer", cycle=1, cause="program", nodes=NODES),
    role(21, "FAILED_USER", "loader", cycle=1, replica=1, cause="restarts_exhausted", detail={"failure": FAILURE}),
)


def test_roles_have_lives_of_their_own():
    told = [(row.role, row.replica, row.cycle, row.state, row.cause) for row in cycles_of(ROLES)]
    assert told == [
        ("ps", None, 0, "RESTARTING", "rank_crash"),
        ("ps", None, 1, "FAILED_USER", "loader: restarts_exhausted"),
        ("loader", 0, 0, "FAILED_USER", "loader: restarts_exhausted"),
        ("loader", 1, 0, "RESTARTING", "rank_crash"),
        ("loader", 1, 1, "FAILED_USER", "restarts_exhausted"),
        ("trainer", None, 0, "RESTARTING", "rollback"),
        ("trainer", None, 1, "FINISHED", "program"),
    ]


def test_roles_that_are_put_back_together_lose_the_same_seconds():
    rows = cycles_of(ROLES)
    assert [round(row.lost_s, 1) for row in rows if row.lost_s is not None] == [1.0, 1.1, 2.0]
    assert lost_s(rows) == 2.0 and lost_by_cause(rows) == {"rollback": 2.0}


def test_a_line_says_whose_event_it_is():
    assert "  loader 1  " in line_of(ROLES[6]) and "  ps  " in line_of(ROLES[2])
