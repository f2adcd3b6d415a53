"""Loads published days into a warehouse (DuckDB or PostgreSQL)."""
