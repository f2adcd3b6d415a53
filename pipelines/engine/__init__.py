"""What runs SQL: DuckDB on this machine, or Spark; and the files that the SQL is in."""
