"""The days in a warehouse: its tables, and how they are loaded into DuckDB and PostgreSQL."""
