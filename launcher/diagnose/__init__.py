"""Stop and check: which node, or which pair of nodes, is slow or broken, found out inside the allocation."""
