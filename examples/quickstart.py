"""Submit a function to two nodes and print what each rank returns. Without a cluster at hand, start one first:

trainmaster lab up && eval "$(trainmaster lab env)"
"""

import os

import trainmaster


def greet(name: str) -> str:
    return f"hello {name}, from rank {os.environ['RANK']} on {os.environ['SLURMD_NODENAME']}"


job = trainmaster.submit(greet, "world", spec=trainmaster.JobSpec(nodes=2))
print(*job.results(), sep="\n")
