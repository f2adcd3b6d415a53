"""What the pipeline reads but does not make, as external assets: the graph begins where the data begins.

The inventory can be observed: its data version is a hash of what was read.
"""

import datetime as dt
from collections.abc import Callable

import dagster as dg

from assets.embedded_sandbox import connect
from assets.partitions import partition_of
from pipelines.errors import PipelineError
from pipelines.settings import Settings
from pipelines.snapshot.inventory_version import inventory_version
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import IMAGES

OBSERVE_JOB = "observe_inventory"
GROUP = "sources"
INVENTORY_SOURCE, MODELARTS_API = "inventory_source", "modelarts_api"
REGISTRY, BILLS, PRICE_BOOK, RULE_FILES = "registry", "bills", "price_book", "audit_rule_files"


def upstream_specs() -> list[dg.AssetSpec]:
    """The external assets that cannot be observed; the cloud and people change them."""
    fields = [
        dg.TableColumn(column.name, str(column.type), column.meaning)
        for column in IMAGES.columns
        if column.origin == "api"
    ]

    def spec(name: str, description: str, kind: str, **metadata: dg.TableSchema) -> dg.AssetSpec:
        return dg.AssetSpec(name, description=description, group_name=GROUP, kinds={kind}, metadata=metadata)

    return [
        spec(
            MODELARTS_API,
            "The cloud's API of images: what an image is now, one image for each request. Its columns are the "
            "documented fields. Notebooks, jobs, services, models and traces are requested with it.",
            "rest",
            **{"dagster/column_schema": dg.TableSchema(fields)},
        ),
        spec(REGISTRY, "The registry (SWR) that stores the layers of images.", "rest"),
        spec(BILLS, "What the cloud billed.", "csv"),
        spec(PRICE_BOOK, "The TOML file of prices (IMAGE_SNAPSHOTS_PRICE_BOOK).", "file"),
        spec(
            RULE_FILES,
            "The audit rules (sql/audit and IMAGE_SNAPSHOTS_AUDIT_RULES) and their suppressions.",
            "sql",
        ),
    ]


def inventory_source_asset(
    grid: dg.MultiPartitionsDefinition, settings: Settings, now: Callable[[], dt.datetime]
) -> dg.AssetsDefinition:
    """Build the observable asset of the inventory's source.

    Its partitions are the days of the projects: a change today does not make past days outdated, which are over.
    """
    spec = dg.AssetSpec(
        INVENTORY_SOURCE,
        description="The inventory of image ids (IMAGE_SNAPSHOTS_INVENTORY), which belongs to its users. Observing it "
        "reads a project's ids of today; the data version is a hash of what was read.",
        group_name=GROUP,
        kinds={_kind(settings)},
    )

    @dg.multi_observable_source_asset(name=INVENTORY_SOURCE, specs=[spec], partitions_def=grid)  # type: ignore[untyped-decorator]
    def inventory_source(context: dg.AssetExecutionContext) -> dg.ObserveResult:
        partition = partition_of(context)
        try:
            run = SnapshotRun(partition, context.run.run_id, settings, now, connect=connect)
            run.check_date(None)
            version, ids = inventory_version(run)
        except PipelineError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        return dg.ObserveResult(INVENTORY_SOURCE, data_version=dg.DataVersion(version), metadata={"ids": ids})

    asset: dg.AssetsDefinition = inventory_source
    return asset


def _kind(settings: Settings) -> str:
    """The kind of the inventory, as the UI's icons name it."""
    stated = settings.inventory.get_secret_value() if settings.inventory else ""
    if "://" in stated:
        scheme = stated.partition("://")[0].partition("+")[0]
        return "postgres" if scheme in ("postgres", "postgresql") else "sql"
    ending = stated[stated.rfind(".") :] if "." in stated else ""
    return {"": "rest", ".csv": "csv", ".parquet": "parquet", ".json": "json"}.get(ending, "file")
