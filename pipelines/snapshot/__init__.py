"""The steps of a day: take the inventory, fetch, normalise, validate, publish."""
