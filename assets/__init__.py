"""WHAT is kept and WHEN: a thin layer, and the only code that imports Dagster. HOW belongs to `pipelines`."""
