"""A signal is heeded although the main thread is stuck in a C call."""

import subprocess
import sys

STUCK = """
import ctypes, os, signal
from trainmaster.launcher.rank.heed import heed

def act():
    print("saved", flush=True)
    os._exit(75)

heed(signal.SIGUSR2, act, stuck_s={patience})
mutex = ctypes.create_string_buffer(64)
libc = ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
print("stuck", flush=True)
libc.pthread_mutex_lock(mutex)
"""

FREE = """
import os, signal, time
from trainmaster.launcher.rank.heed import heed

times = []
heed(signal.SIGUSR2, lambda: times.append(time.monotonic()), stuck_s=0.2)
os.kill(os.getpid(), signal.SIGUSR2)
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGUSR2)
    os._exit(0)
os.waitpid(child, 0)
time.sleep(0.5)
print(len(times))
"""


def test_a_stuck_main_thread_does_not_keep_a_checkpoint_from_being_written():
    rank = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(patience=0.1)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert rank.stdout is not None
    assert rank.stdout.readline() == "stuck\n"
    rank.send_signal(12)
    out, err = rank.communicate(timeout=60)
    assert (out, rank.returncode) == ("saved\n", 75), err


def test_a_main_thread_that_is_free_acts_alone_and_children_not_at_all():
    done = subprocess.run([sys.executable, "-c", FREE], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "1\n", done.stderr
