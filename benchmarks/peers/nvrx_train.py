"""A training script under ft_launcher, with its heartbeats: nvrx_train.py SCRIPT ARGS...

The script calls trainmaster.step after each step, if there is one; here that sends nvidia-resiliency-ext's heartbeat.
"""

import runpy
import sys
from pathlib import Path

import nvidia_resiliency_ext.fault_tolerance as fault_tolerance

import trainmaster

client = fault_tolerance.RankMonitorClient()
client.init_workload_monitoring()
trainmaster.step = lambda number: client.send_heartbeat()  # type: ignore[assignment]
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
