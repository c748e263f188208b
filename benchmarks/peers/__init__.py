"""The ways to keep a training job running that `recovery.py` compares: all start the same training."""
