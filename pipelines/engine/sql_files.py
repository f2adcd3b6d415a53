"""The files under `sql/`: SQL that people read and run, and that the modules here run."""

from pipelines.settings import ROOT


def read_sql(name: str) -> str:
    """Text of a file under `sql/`."""
    return (ROOT / "sql" / name).read_text()
