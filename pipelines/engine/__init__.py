"""Runs SQL with DuckDB or Spark, and reads the SQL files."""
