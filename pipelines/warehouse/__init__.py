"""Loads published days into a warehouse (DuckDB or PostgreSQL); the sources of dbt over it."""
