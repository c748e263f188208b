"""The ways to keep a training job running that `recovery.py` compares: each starts the same training on the same lab."""
