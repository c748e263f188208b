"""The requeue controller and the maintenance trains: observe, decide (pure), act, journal."""
