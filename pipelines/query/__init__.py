"""SQL queries over the whole lake."""
