"""submitit's own test suite, run with trainmaster's classes in place of submitit's."""
