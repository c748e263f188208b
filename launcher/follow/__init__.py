"""A submitted job from outside: its state, its end, its output, and the verbs of `trainmaster jobs`."""
