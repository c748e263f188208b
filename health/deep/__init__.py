"""Checks that load a GPU for seconds. They run as jobs on idle or drained nodes, never in a prolog."""
