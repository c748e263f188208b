"""`trainmaster uninstall`: takes away what `trainmaster install` put there."""

from trainmaster.slurm_plugins.install_cli import configure_uninstall as configure

__all__ = ["configure"]
