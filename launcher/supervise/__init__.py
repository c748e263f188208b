"""The supervisor, one process a job: who runs where, what happened, what to do. Standard library only."""
