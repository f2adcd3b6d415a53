"""A day on one page, for people."""
