"""The whole lake for people, in SQL."""
