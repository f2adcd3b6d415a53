"""The metadata of tables for Dagster's UI, made from `tables` and the facts of the files."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from assets.lineage import column_lineage
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import FetchFacts, FileFacts, InventoryFacts, unobserved_usage
from pipelines.plain_text import visible
from pipelines.tables import Table

_MOST_SHOWN = 20


def definition_metadata(table: Table) -> dict[str, Any]:
    """Metadata of the asset itself: its columns, their meanings and what they come from."""
    columns = [
        dg.TableColumn(
            name=column.name,
            type=str(column.type),
            description=column.meaning,
            constraints=dg.TableColumnConstraints(nullable=not column.required),
            tags={"origin": column.origin},
        )
        for column in table.columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns), "dagster/column_lineage": column_lineage(table)}


def file_metadata(lake: Lake, facts: FileFacts) -> dict[str, Any]:
    """Metadata of one materialisation's file."""
    return {
        "dagster/partition_row_count": facts.rows,
        "dagster/uri": (lake.root / facts.path).uri,
        "bytes": facts.bytes,
        "sha256": facts.sha256,
    }


def inventory_metadata(facts: InventoryFacts) -> dict[str, Any]:
    """What was read from the inventory, and what was dropped."""
    return {
        "source": visible(facts.source),
        **({"source_modified_at": dg.MetadataValue.timestamp(facts.modified_at)} if facts.modified_at else {}),
        **{name: getattr(facts, name) for name in ("ids", "rows_read", "blank", "duplicate", "invalid")},
        **{name: getattr(facts, name) for name in ("other_project", "unknown_project", "shortfall")},
        **{name: getattr(facts, name) for name in ("known", "missing", "added", "is_whole", "is_accepted")},
    }


def fetch_metadata(facts: FetchFacts) -> dict[str, Any]:
    """How the responses were fetched."""
    seconds = (facts.finished_at - facts.started_at).total_seconds()
    return {
        "endpoint": facts.endpoint_host,
        "is_sandbox": facts.is_sandbox,
        "project_id": facts.project_id,
        **{f"outcome_{name}": count for name, count in facts.outcomes.items()},
        "mode": facts.mode,
        "carried_forward": facts.carried,
        "kept_from_earlier_attempt": facts.kept,
        "seconds": round(seconds, 3),
        "requests": facts.requests,
        "requests_per_second": round(facts.requests / max(seconds, 0.001), 1),
        "retries": facts.retries,
        "throttled": facts.throttled,
        "token_renewals": facts.token_renewals,
        "bytes_received": facts.bytes_received,
        "list_was_read": facts.list_was_read,
        **({"list_error": visible(facts.list_error)} if facts.list_error else {}),
        **({"list_shortfall": facts.list_shortfall} if facts.list_shortfall else {}),
        "workspaces": ", ".join(map(visible, facts.scope.workspaces)),
        **({"workspaces_outside": ", ".join(map(visible, facts.scope.outside))} if facts.scope.outside else {}),
        "usage_is_observed": facts.usage_is_observed,
        **{f"{name}_items": facts.sources[name].items for name in facts.usage_kinds},
        **{f"{name}_error": visible(why) for name, why in unobserved_usage(facts).items()},
        **({} if facts.clock_skew_seconds is None else {"clock_skew_seconds": facts.clock_skew_seconds}),
    }


def rows_metadata(rows: list[dict[str, Any]]) -> dg.MetadataValue:
    """A small table of a few rows."""
    records = [
        dg.TableRecord({name: "" if value is None else visible(str(value)) for name, value in row.items()})
        for row in rows
    ]
    names = list(rows[0]) if rows else []
    return dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(name, "string") for name in names]))


def counts_metadata(counts: Mapping[str, int]) -> dg.MetadataValue:
    """Names with their counts, largest first."""
    most = Counter(counts).most_common(_MOST_SHOWN)
    schema = dg.TableSchema([dg.TableColumn("name", "string"), dg.TableColumn("count", "int")])
    return dg.MetadataValue.table(
        [dg.TableRecord({"name": visible(name), "count": count}) for name, count in most], schema
    )


def selected(
    context: dg.AssetExecutionContext, results: Iterable[dg.MaterializeResult[Any]]
) -> Iterator[dg.MaterializeResult[Any]]:
    """Keep the results and checks of the selected assets of a step."""
    for result in results:
        if result.asset_key is not None and result.asset_key in context.selected_asset_keys:
            checks = [
                check
                for check in result.check_results or []
                if dg.AssetCheckKey(result.asset_key, check.check_name or "") in context.selected_asset_check_keys
            ]
            yield dg.MaterializeResult[Any](asset_key=result.asset_key, metadata=result.metadata, check_results=checks)
