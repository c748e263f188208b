"""Node checks, their runner, verdict policy and drain ledger. Standard library only: it starts inside a prolog."""
