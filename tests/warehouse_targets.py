"""Warehouses that a test loads, and their content."""

import duckdb
import psycopg


class DuckDBTarget:
    def __init__(self, directory):
        self.path = directory / "w.duckdb"
        self.url = f"duckdb:///{self.path}"

    def connect(self):
        return duckdb.connect(self.path)


class PostgresTarget:
    def __init__(self, url):
        self.url = url

    def connect(self):
        return psycopg.connect(self.url, autocommit=True)


def read(target, *queries):
    """Rows of each query, as dictionaries."""
    found = []
    with target.connect() as connection:
        for query in queries:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description]
            found.append([dict(zip(names, row, strict=True)) for row in cursor.fetchall()])
    return found


def rows(target, query):
    return read(target, query)[0]
