"""Which engine a run has."""

from pipelines.engine.duckdb import DERIVING_MEMORY, DuckDBEngine
from pipelines.engine.interface import Engine
from pipelines.settings import Settings


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings name, to be entered.

    Raises:
        ConfigurationError: what the engine needs is not installed.
    """
    # Imported here: Spark is an optional extra.
    if settings.engine == "spark":
        from pipelines.engine.spark import SparkEngine  # noqa: PLC0415

        return SparkEngine(settings.spark_master)
    return DuckDBEngine(DERIVING_MEMORY)
