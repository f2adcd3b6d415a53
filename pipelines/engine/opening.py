"""Chooses the engine of a run."""

from pipelines.engine.duckdb import DERIVING_MEMORY, DuckDBEngine
from pipelines.engine.interface import Engine
from pipelines.settings import Settings


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings name, as a context manager.

    Raises:
        ConfigurationError: a package that the engine needs is not installed.
    """
    # Imported here, because Spark is optional.
    if settings.engine == "spark":
        from pipelines.engine.spark import SparkEngine  # noqa: PLC0415

        return SparkEngine(settings.spark_master)
    return DuckDBEngine(DERIVING_MEMORY)
