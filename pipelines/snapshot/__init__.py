"""The steps of a run: read the inventory, fetch, normalise, validate, publish."""
