"""Which image ids exist, according to the user: where they are read from, and how they are cleaned."""
