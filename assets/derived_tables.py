"""The assets that are derived from published days: history, changes, reconciliation, usage, audit, costs.

They are one step, because each day's tables depend on those of the day before. The step updates every day of the
project whose derived tables are missing or outdated.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.backfills import is_followed
from assets.common import check_result, check_specs, made_by
from assets.metadata import definition_metadata, file_metadata, selected
from assets.resources import RunResource
from assets.upstream import PRICE_BOOK, RULE_FILES
from pipelines.derive.days import DerivationResult, derive_days
from pipelines.plain_text import visible
from pipelines.settings import Settings
from pipelines.tables import (
    ANALYSIS_TABLES,
    AUDIT_FINDINGS,
    AUDIT_RULES,
    BILL_DAYS,
    IMAGE_BILLS,
    IMAGE_CHANGES,
    IMAGE_COSTS,
    IMAGE_HISTORY,
    IMAGE_RECONCILIATION,
    IMAGE_STORAGE,
    IMAGE_USAGE,
    IMAGES,
    RECLAIMABLE,
    REGISTRY_ONLY,
    Table,
)

_RESPONSES, _INVENTORY = "image_responses", "image_inventory"

_DEPENDENCIES: dict[str, tuple[str, ...]] = {
    IMAGE_HISTORY.name: (IMAGES.name, _RESPONSES),
    IMAGE_CHANGES.name: (IMAGE_HISTORY.name, IMAGE_STORAGE.name),
    IMAGE_RECONCILIATION.name: (_INVENTORY, _RESPONSES, IMAGE_HISTORY.name),
    IMAGE_STORAGE.name: (_RESPONSES, IMAGE_HISTORY.name),
    REGISTRY_ONLY.name: (_RESPONSES, IMAGE_RECONCILIATION.name),
    IMAGE_USAGE.name: (_RESPONSES, IMAGE_HISTORY.name),
    AUDIT_RULES.name: (
        RULE_FILES,
        IMAGE_CHANGES.name,
        IMAGE_RECONCILIATION.name,
        IMAGE_STORAGE.name,
        REGISTRY_ONLY.name,
        IMAGE_USAGE.name,
    ),
    AUDIT_FINDINGS.name: (AUDIT_RULES.name,),
    IMAGE_COSTS.name: (
        PRICE_BOOK,
        _INVENTORY,
        IMAGE_HISTORY.name,
        IMAGE_USAGE.name,
        IMAGE_STORAGE.name,
        RECLAIMABLE.name,
        IMAGE_BILLS.name,
    ),
    # They divide the bills of earlier days, by those days' tables.
    BILL_DAYS.name: (_RESPONSES, IMAGE_BILLS.name),
    IMAGE_BILLS.name: (_RESPONSES,),
    RECLAIMABLE.name: (IMAGE_USAGE.name, IMAGE_STORAGE.name, AUDIT_FINDINGS.name),
}
# The code that makes each table, beside what all of them need.
_SHARED_CODE = (
    "pipelines/derive/analysis.py",
    "pipelines/derive/days.py",
    "pipelines/engine",
    "sql/derive/current_images.sql",
    "sql/derive/image_owners.sql",
)
_BILL_CODE = (
    "pipelines/derive/bills.py",
    *(f"sql/cost/{name}.sql" for name in ("bill_statements", "bill_days", "image_bills")),
)
_AUDIT_CODE = (
    *(f"pipelines/derive/{name}.py" for name in ("audit", "rule_process", "rule_worker")),
    *(f"sql/derive/{name}.sql" for name in ("audit_rules", "audit_findings")),
    "sql/audit",
)
_STORAGE_CODE = (
    "pipelines/derive/storage.py",
    *(f"sql/derive/{name}.sql" for name in ("layer_tags", "manifests", "shared_layers", "manifest_storage")),
    *(f"sql/derive/{name}.sql" for name in ("tag_storage", "image_addresses")),
    "sql/derive/undescribed_positions.sql",
)
_CODE: dict[str, tuple[str, ...]] = {
    IMAGE_HISTORY.name: (
        "pipelines/derive/history.py",
        "sql/derive/image_history_step.sql",
        "sql/derive/past_tags.sql",
    ),
    IMAGE_CHANGES.name: ("pipelines/derive/history.py", "sql/derive/image_changes.sql"),
    IMAGE_RECONCILIATION.name: (
        "pipelines/derive/reconciliation.py",
        *(f"sql/derive/{name}.sql" for name in ("image_reconciliation", "unmatched_images", "unregistered_positions")),
    ),
    IMAGE_USAGE.name: (
        "pipelines/derive/usage.py",
        "sql/derive/image_usage.sql",
        "sql/derive/referenced_images.sql",
    ),
    IMAGE_STORAGE.name: (*_STORAGE_CODE, "sql/derive/image_storage.sql"),
    REGISTRY_ONLY.name: (*_STORAGE_CODE, "sql/derive/registry_only.sql"),
    RECLAIMABLE.name: (
        *_STORAGE_CODE,
        *(f"sql/derive/{name}.sql" for name in ("unused_sets", "sets", "stored_tags", "set_members", "set_tags")),
        *(f"sql/derive/{name}.sql" for name in ("set_layers", "freed_bytes", "reclaimable")),
    ),
    AUDIT_RULES.name: _AUDIT_CODE,
    AUDIT_FINDINGS.name: _AUDIT_CODE,
    BILL_DAYS.name: _BILL_CODE,
    IMAGE_BILLS.name: _BILL_CODE,
    IMAGE_COSTS.name: (
        *(f"pipelines/derive/{name}.py" for name in ("costs", "prices", "usage")),
        "sql/cost",
    ),
}
_ALL_CODE = ("pipelines/derive", "sql/derive", "sql/audit", "sql/cost")
_GROUPS = {AUDIT_RULES.name: "audit", AUDIT_FINDINGS.name: "audit"} | {
    table.name: "cost"
    for table in (BILL_DAYS, IMAGE_BILLS, IMAGE_COSTS, IMAGE_STORAGE, IMAGE_USAGE, RECLAIMABLE, REGISTRY_ONLY)
}
OF_THE_REGISTRY = (IMAGE_STORAGE, REGISTRY_ONLY, RECLAIMABLE)

_CHECKS = {
    IMAGE_CHANGES.name: {"day_is_complete": "The day is complete, so it was compared with the last complete day."},
    IMAGE_RECONCILIATION.name: {
        "inventory_matches": "The image list was read and the inventory is whole; every listed image is registered, "
        "and no registered image is gone."
    },
    IMAGE_USAGE.name: {
        "usage_was_observed": "The day is complete and all that could use an image was read, as far as that was wanted."
    },
    AUDIT_RULES.name: {"rules_work": "Every audit rule could be run."},
    AUDIT_FINDINGS.name: {"no_grave_findings": "No finding of severity critical or high is open."},
    IMAGE_COSTS.name: {"everything_is_priced": "The price book has a price for every image."},
}


def derived_assets(grid: dg.MultiPartitionsDefinition, settings: Settings) -> dg.AssetsDefinition:
    """Build the assets of the derived tables; `image_usage` is among them if any project reads usage."""
    reads_usage = any(own.reads_usage for own in settings.of_each_project)
    unread = set() if reads_usage else {IMAGE_USAGE.name}
    if not any(own.reads_registry for own in settings.of_each_project):
        unread |= {table.name for table in OF_THE_REGISTRY}
    tables = [table for table in ANALYSIS_TABLES.values() if table.name not in unread]
    names = {table.name for table in tables}

    def spec(table: Table) -> dg.AssetSpec:
        inside_or_before = [name for name in _DEPENDENCIES[table.name] if name in names or name not in ANALYSIS_TABLES]
        return dg.AssetSpec(
            table.name,
            deps=inside_or_before,
            description=table.meaning,
            group_name=_GROUPS.get(table.name, "history"),
            kinds={"parquet", "duckdb"},
            metadata=definition_metadata(table),
            code_version=made_by(*_SHARED_CODE, *_CODE.get(table.name, _ALL_CODE)),
        )

    @dg.multi_asset(
        name="derive_tables",
        partitions_def=grid,
        # They are made together, but may be selected and shown separately.
        can_subset=True,
        specs=[spec(table) for table in tables],
        check_specs=[
            check for name, checks in _CHECKS.items() if name in names for check in check_specs(name, checks, grid)
        ],
    )
    def derive_tables(
        context: dg.AssetExecutionContext, runs: dg.ResourceParam[RunResource]
    ) -> Iterator[dg.MaterializeResult]:
        if is_followed(context):
            # Each would derive all later days; so the last one derives all days, and delivers them.
            context.log.info("Nothing is derived: the last run of this backfill does that for all days of the project.")
            return
        with runs.step(context, "its changes, findings and costs were not derived") as run:
            result = derive_days(
                run,
                lambda partition, number, total: context.log.info(
                    "Deriving %s (%d of %d)", partition, number + 1, total
                ),
            )
        facts, passed, files = _facts(result), _passed(result), result.derived_manifest.files
        results = [
            dg.MaterializeResult[Any](
                asset_key=table.name,
                metadata={
                    **(file_metadata(run.lake, files[table.name]) if table.name in files else {}),
                    **facts[table.name],
                },
                check_results=[check_result(table.name, name, passed[name]) for name in _CHECKS.get(table.name, ())],
            )
            for table in tables
        ]
        yield from selected(context, results)

    return derive_tables


def _facts(result: DerivationResult) -> Mapping[str, dict[str, Any]]:
    """The metadata of each table for the operator; numbers become trends in the UI."""
    summary, history = result.derived_manifest.summary, result.history
    return {
        IMAGE_HISTORY.name: {
            "dagster/row_count": history.versions,
            "dagster/uri": history.path.uri,
            "living_images": history.current - history.deleted,
            "deleted_images": history.deleted,
            "complete_days": history.days,
        },
        IMAGE_CHANGES.name: {f"images_{change}": count for change, count in summary.changes.items()},
        IMAGE_RECONCILIATION.name: dict(result.reconciliation.counts),
        IMAGE_USAGE.name: {
            **({} if result.usage.used is None else {"images_used": result.usage.used}),
            "images_unused": result.usage.unused,
            **(
                {}
                if result.usage.unmatched_references is None
                else {"unmatched_references": result.usage.unmatched_references}
            ),
        },
        IMAGE_STORAGE.name: _known(tags=result.storage.tags, stored_bytes=result.storage.stored_bytes)
        | {"repositories_not_read": result.storage.unread},
        REGISTRY_ONLY.name: _known(
            tags=result.storage.registry_only_tags, unique_bytes=result.storage.registry_only_bytes
        ),
        RECLAIMABLE.name: {
            "known_bytes": result.costs.known_reclaimable_bytes,
            "unknown_images": result.costs.unknown_reclaimable_images,
        },
        AUDIT_RULES.name: {
            "failed_rules": dg.MetadataValue.json({rule: visible(error) for rule, error in summary.rule_errors.items()})
        },
        AUDIT_FINDINGS.name: {
            **{f"open_{severity}": count for severity, count in summary.findings.items()},
            "new": summary.new_findings,
            "resolved": summary.resolved_findings,
            "suppressed": summary.suppressed_findings,
        },
        BILL_DAYS.name: _known(
            billed_cost=None if summary.billed_cost is None else float(summary.billed_cost),
            not_allocated_cost=None if summary.not_allocated_cost is None else float(summary.not_allocated_cost),
        ),
        IMAGE_BILLS.name: {},
        IMAGE_COSTS.name: {
            "total_bytes": summary.total_bytes,
            "currency": summary.currency,
            **{
                name: value
                for name, value in (
                    ("growth_bytes", summary.growth_bytes),
                    ("estimated_cost_of_the_day", summary.estimated_cost),
                    (
                        "reclaimable_bytes" if summary.registry else "reclaimable_bytes_upper_bound",
                        summary.reclaimable_bytes,
                    ),
                )
                if value is not None
            },
            "images_without_a_price": summary.unpriced,
        },
    }


def _known(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _passed(result: DerivationResult) -> dict[str, bool]:
    """Whether each check passes."""
    summary = result.derived_manifest.summary
    return {
        "day_is_complete": summary.is_complete,
        "inventory_matches": result.reconciliation.was_compared and not any(result.reconciliation.counts.values()),
        "usage_was_observed": result.usage.used is not None,
        "rules_work": not summary.rule_errors,
        "no_grave_findings": not (summary.findings.get("critical") or summary.findings.get("high")),
        "everything_is_priced": summary.unpriced == 0,
    }
