"""The batch step of an array's task: makes the run folder and becomes its supervisor. Standard library only."""

import os
import sys
from pathlib import Path

from trainmaster.launcher import array_layout
from trainmaster.launcher.supervise import supervisor


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.script.array_task ARRAY_DIR`."""
    index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    run_dir = array_layout.unfold(Path(argv[0]), index, array_layout.job_id_here(os.environ))
    code = supervisor.main([str(run_dir), *argv[1:]])
    # The reserve of the record: of a thousand tasks it would be 64 MB.
    (run_dir / ".reserve").unlink(missing_ok=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
