"""The assets that deliver a day: the tables of the warehouse and of the Iceberg catalog, and the daily report."""

import dagster as dg

from assets.common import made_by
from assets.resources import RunResource
from pipelines.report.page import outdated_reports, write_report
from pipelines.tables import (
    AUDIT_FINDINGS,
    AUDIT_RULES,
    IMAGE_CHANGES,
    IMAGE_COSTS,
    IMAGE_HISTORY,
    IMAGE_RECONCILIATION,
    IMAGE_TAGS,
    IMAGE_VALUES,
    IMAGES,
)
from pipelines.warehouse.loading import load_project

WAREHOUSE_POOL = "warehouse"
CATALOG_POOL = "catalog"
_REPORTED = (IMAGE_CHANGES, IMAGE_RECONCILIATION, AUDIT_RULES, AUDIT_FINDINGS, IMAGE_COSTS)
_LOADED = (IMAGES, IMAGE_VALUES, IMAGE_TAGS, IMAGE_HISTORY, *_REPORTED)


def warehouse_asset(grid: dg.MultiPartitionsDefinition, retry: dg.RetryPolicy | None) -> dg.AssetsDefinition:
    """Build the asset of the warehouse; `retry` is for a warehouse that does not answer."""

    @dg.asset(
        description="The warehouse's tables and views: this day, and other days that are missing or outdated there.",
        group_name="delivery",
        kinds={"sql", "table"},
        partitions_def=grid,
        deps=[table.name for table in _LOADED],
        code_version=made_by("pipelines/warehouse", "sql/views"),
        retry_policy=retry,
        pool=WAREHOUSE_POOL,
    )
    def warehouse_tables(
        context: dg.AssetExecutionContext, runs: dg.ResourceParam[RunResource]
    ) -> dg.MaterializeResult:
        with runs.step(context, "it was not loaded into the warehouse") as run:
            url = run.settings.warehouse
            result = load_project(run.lake, run.partition, url.get_secret_value() if url else None)
        return dg.MaterializeResult(
            metadata={
                "warehouse": result.warehouse,
                "dagster/partition_row_count": sum(result.rows.values()),
                **{f"rows_{name}": rows for name, rows in result.rows.items()},
                "other_days_loaded": result.other_days,
                "seconds": round(result.seconds, 3),
            }
        )

    return warehouse_tables


def catalog_asset(grid: dg.MultiPartitionsDefinition, retry: dg.RetryPolicy | None) -> dg.AssetsDefinition:
    """Build the asset of the Iceberg catalog; `retry` is for a catalog that does not answer."""

    @dg.asset(
        description="The tables of the Iceberg catalog: this day, and other days that are missing or outdated there.",
        group_name="delivery",
        kinds={"iceberg", "table"},
        partitions_def=grid,
        deps=[table.name for table in _LOADED],
        code_version=made_by("pipelines/catalog"),
        retry_policy=retry,
        pool=CATALOG_POOL,
    )
    def catalog_tables(context: dg.AssetExecutionContext, runs: dg.ResourceParam[RunResource]) -> dg.MaterializeResult:
        from pipelines.catalog.loading import load_catalog_project  # noqa: PLC0415  (an optional package)

        with runs.step(context, "it was not loaded into the catalog") as run:
            result = load_catalog_project(run.lake, run.partition, str(run.settings.catalog), f"run {run.run_id}")
        return dg.MaterializeResult(
            metadata={
                "catalog": result.catalog,
                "dagster/partition_row_count": sum(result.rows.values()),
                **{f"rows_{name}": rows for name, rows in result.rows.items()},
                "commits": result.commits,
                "other_days_loaded": result.other_days,
                "seconds": round(result.seconds, 3),
            }
        )

    return catalog_tables


def report_asset(grid: dg.MultiPartitionsDefinition) -> dg.AssetsDefinition:
    """Build the asset of the daily report."""

    @dg.asset(
        description="The day on one page: figures, findings with evidence, changes, costs, provenance.",
        group_name="delivery",
        kinds={"html"},
        partitions_def=grid,
        deps=[table.name for table in _REPORTED],
        code_version=made_by("pipelines/report", "sql/report"),
    )
    def daily_report(context: dg.AssetExecutionContext, runs: dg.ResourceParam[RunResource]) -> dg.MaterializeResult:
        with runs.step(context, "its report was not written") as run:
            path = write_report(run.lake, run.partition)
            others = outdated_reports(run.lake, run.partition.project)
            for other in others:
                write_report(run.lake, other)
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.url(path.uri),
                # A path to copy, not a link: browsers do not open local files from pages of another host.
                "path": dg.MetadataValue.path(str(path)),
                "bytes": path.stat().st_size,
                "other_reports_written": len(others),
            }
        )

    return daily_report
