"""One page for the fleet, in a browser or a terminal: what the controller knows, drawn; read-only unless it may act."""
