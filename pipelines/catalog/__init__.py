"""Copies published days into the tables of an Iceberg catalog, each table's day in one commit."""
