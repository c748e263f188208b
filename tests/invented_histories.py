"""Accounting histories that hypothesis invents: every kind of end, clocks that jump, ends that nobody knows."""

from hypothesis import strategies as st

from trainmaster.slurm.accounting import NodeEvent, Row

T0 = 1_793_000_000
SINCE, UNTIL = T0, T0 + 40_000
STATES = (
    "COMPLETED", "FAILED", "NODE_FAIL", "REQUEUED", "PREEMPTED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "RESIZING",
    "BOOT_FAIL", "RUNNING", "PENDING", "SUSPENDED", "DEADLINE", "NEW_IN_27",
)  # fmt: skip
# Before the report, in it, after it.
moments = st.integers(T0 - 5_000, T0 + 50_000)
maybe = st.none() | moments


def row(**values) -> Row:
    usual = {
        "job_id": 7,
        "shown": "7",
        "user": "ann",
        "partition": "batch",
        "state": "COMPLETED",
        "submit_s": T0,
        "eligible_s": T0,
        "start_s": T0 + 10,
        "end_s": T0 + 1010,
        "suspended_s": 0,
        "nodes": 2,
        "gpus": 16,
        "node_list": "n[01-02]",
    }
    return Row(**usual | values)


@st.composite
def attempts(draw, job_id: int = 7) -> tuple[Row, ...]:
    """The attempts of one job, in the order in which `runs` would have put them."""
    shown = draw(st.sampled_from((f"{job_id}", f"{job_id}_3", f"{job_id}+1")))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        nodes = draw(st.integers(0, 3))
        found.append(
            row(
                job_id=job_id,
                shown=shown,
                state=draw(st.sampled_from(STATES)),
                submit_s=draw(maybe),
                eligible_s=draw(maybe),
                start_s=draw(maybe),
                end_s=draw(maybe),
                suspended_s=draw(st.sampled_from((0, 0, 5, 20_000))),
                nodes=nodes,
                gpus=draw(st.integers(0, 16)),
                node_list="n[01-03]" if nodes else "",
            )
        )
    return tuple(sorted(found, key=lambda one: (one.submit_s or 0, one.start_s or 1 << 60)))


@st.composite
def clean_attempt(draw) -> Row:
    """One attempt in which times are in their order."""
    times = sorted(draw(st.lists(st.integers(SINCE, UNTIL), min_size=3, max_size=3)))
    ended = st.sampled_from([state for state in STATES if state not in ("RUNNING", "PENDING", "SUSPENDED")])
    return row(
        state=draw(ended),
        submit_s=times[0],
        eligible_s=times[0],
        start_s=times[1],
        end_s=times[2],
        gpus=draw(st.integers(0, 16)),
        nodes=draw(st.integers(1, 3)),
    )


events = st.lists(
    st.builds(
        NodeEvent,
        node=st.sampled_from(("n01", "n02", "n09")),
        start_s=moments,
        end_s=maybe,
        reason=st.sampled_from(("Not responding", "[HC] gpu.xid: 79", "firmware", "bob", "[TM] flap: 3 times")),
    ),
    max_size=4,
)
