"""What an admin installs into Slurm: hooks, Lua, a SPANK plugin, systemd units, doctor and install."""
