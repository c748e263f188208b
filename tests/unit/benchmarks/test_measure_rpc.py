"""Calls to Slurm's daemons, from what they print of themselves."""

from measure.rpc import counts, of_clients

BEFORE = """
Remote Procedure Call statistics by message type
\tREQUEST_JOB_INFO                        ( 2003) count:14     ave_time:530    total_time:7433
\tMESSAGE_NODE_REGISTRATION_STATUS        ( 1002) count:12     ave_time:664    total_time:7972

Remote Procedure Call statistics by user
\troot            (       0) count:435    ave_time:656    total_time:285533
"""
AFTER = (
    BEFORE.replace("count:14 ", "count:17 ").replace("count:12 ", "count:90 ")
    + "\tDBD_GET_JOBS_COND ( 1444) count:2 a\n"
)


def test_only_what_clients_ask_counts():
    assert counts(BEFORE) == {"REQUEST_JOB_INFO": 14, "MESSAGE_NODE_REGISTRATION_STATUS": 12}
    assert of_clients(counts(BEFORE), counts(AFTER)) == {"REQUEST_JOB_INFO": 3, "DBD_GET_JOBS_COND": 2}
