"""The agent, one process a node: starts ranks, watches them, stops them. Standard library only."""
