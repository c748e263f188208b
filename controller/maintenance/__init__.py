"""Maintenance trains: every host visited within a cycle, and never more taken out than was promised to stay in."""
