"""WHAT is kept and WHEN: the only code that knows Dagster, and thin. How it is made belongs to `pipelines`."""
