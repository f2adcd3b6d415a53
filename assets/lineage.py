"""Column lineage for Dagster's UI: which column comes from which field of the API, made from the tables' columns."""

import dagster as dg

from assets.upstream import INVENTORY_SOURCE, MODELARTS_API
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, INVENTORY, RESPONSES, Column, Table

_INVENTORY, _RESPONSES = "image_inventory", "image_responses"
_KEPT = {column.name for column in RESPONSES.columns}


def column_lineage(table: Table) -> dg.TableColumnLineage:
    """What each column of a table comes from; columns without a known source are left out."""
    sources = {column.name: _sources(table, column) for column in table.columns}
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(dg.AssetKey(asset), column) for asset, column in found]
            for name, found in sources.items()
            if found
        }
    )


def _sources(table: Table, column: Column) -> list[tuple[str, str]]:
    """Asset and column of each source."""
    names = column.source or (column.name,)
    if table is INVENTORY:
        return [(INVENTORY_SOURCE, name) for name in names] if column.origin == "inventory" else []
    if table is RESPONSES:
        # Each body has all fields of one image.
        fields = [(MODELARTS_API, field.name) for field in IMAGES.columns if field.origin == "api"]
        return fields if column.name == "body" else [(_INVENTORY, "id")] if column.name == "id" else []
    if table in (IMAGES, IMAGE_VALUES, IMAGE_TAGS):
        if column.origin in ("api", "derived"):
            return [(MODELARTS_API, name) for name in names] + [(_RESPONSES, "body")]
        return [(_RESPONSES, name) for name in names if name in _KEPT]
    # A column that the derived tables have in common with the snapshot.
    return [(IMAGES.name, column.name)] if column in IMAGES.columns else []
