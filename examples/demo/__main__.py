"""`make demo`: a real Slurm cluster on this machine, a real training job, and two real faults that it survives.

    python examples/demo [--steps 900] [--out demo]

A lab of six nodes starts. A small GPT trains on four of them, with a fifth as a spare. After a third of the steps one
node dies; after two thirds one rank crashes. At the end there is a timeline here, and a page in OUT/report.html.
Exit code 1 when the job does not succeed or a fault did not do what it should, with what was seen instead.
"""

import sys

from play import main

sys.exit(main(sys.argv[1:]))
