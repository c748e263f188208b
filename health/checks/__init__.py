"""One file a check, named after its id. `health/registry.py` lists them."""
