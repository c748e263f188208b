"""`python -m trainmaster` is the command `trainmaster`."""

import sys

from trainmaster.cli import main

sys.exit(main())
