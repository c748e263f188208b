"""The only door to Slurm: frozen values, a client protocol and its adaptors."""

__version__ = "0.1.0"
