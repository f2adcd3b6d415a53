"""Published days of few rows, for tests of derived tables: real files with a real manifest."""

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Collection
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from pipelines.derive.history import days_metadata
from pipelines.lake.clock import newest_publication
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import (
    FetchFacts,
    InventoryFacts,
    Manifest,
    RegistryFacts,
    ScopeFacts,
    SourceFacts,
    published_days,
)
from pipelines.settings import Settings
from pipelines.snapshot.publish import publish
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import IMAGE_HISTORY, IMAGE_REFERENCES, LIST_PAGES, TABLES, USAGE_SOURCES, Table

PROJECT_ID = "p1"
# A source was read if its table is given.
_OTHER_SOURCES = (("registry", "registry_tags"), ("bills", "billed_costs"))
_PAGE_ITEMS = 3
_BATCH_ROWS = 100


def day_of(date: str) -> SnapshotRun:
    """A run in the working directory's lake."""
    return SnapshotRun(Partition(dt.date.fromisoformat(date), "default"), "run-1", Settings(lake="lake"))


def rows_of(table: Table, rows: list[dict], **defaults) -> pa.Table:
    """Arrow data of a table; missing values are the default, or null."""
    names = set(table.schema.names)
    defaults = {name: value for name, value in defaults.items() if name in names}
    return pa.Table.from_pylist([defaults | row for row in rows], table.schema)


def _zeros(facts: type[BaseModel]) -> dict:
    return {name: 0 for name, field in facts.model_fields.items() if field.is_required()}


def publish_snapshot(
    day: SnapshotRun,
    *,
    listed: list[dict] | None = None,
    references: list[dict] | None = None,
    kinds: Collection[str] = ("notebooks",),
    inventory_facts: dict | None = None,
    fetch_facts: dict | None = None,
    hour: int = 12,
    **tables: list[dict],
) -> Manifest:
    """Publish a day of these rows; a response that is `failed` makes it incomplete.

    `listed`: items of the API's list; `references`: rows of `image_references` of the sources `kinds`; None when the
    day did not read them. A reference is `required`, of a notebook, unless it says otherwise.
    `inventory_facts` and `fetch_facts` are what its manifest says besides. `hour`: when it is published.
    """
    published_at = dt.datetime.combine(day.partition.date, dt.time(hour), dt.UTC)
    noon = dt.datetime.combine(day.partition.date, dt.time(12), dt.UTC)
    newest = newest_publication(day.lake, day.partition.project)
    given = {IMAGE_REFERENCES.name: references or [], **tables}
    if listed is not None:
        pages = [listed[first : first + _PAGE_ITEMS] for first in range(0, len(listed), _PAGE_ITEMS)] or [[]]
        given[LIST_PAGES.name] = [
            {"page": number, "body": json.dumps({"data": items}).encode(), "body_sha256": "0"}
            for number, items in enumerate(pages)
        ]
    files = {}
    for name, table in TABLES.items():
        files[name] = day.staged(name)
        data = rows_of(
            table,
            given.pop(name, []),
            snapshot_date=day.partition.date,
            project_id=PROJECT_ID,
            project_key=day.partition.project,
            observed_at=noon,
            id_as_read="",
            is_valid=True,
            id_source="inventory",
            attempts=1,
            elapsed_ms=1,
            response_sha256="0",
            content_hash="0",
            position=0,
            kind="notebook",
            strength="required",
        )
        with day.lake.writer(files[name], table, day.run_id) as writer:
            # As when they arrive: a few at a time.
            for batch in data.to_batches(max_chunksize=_BATCH_ROWS):
                writer.write(batch)
    assert not given, f"no such table: {given.keys()}"
    inventory = _zeros(InventoryFacts) | {"source": "a.csv", "kind": "csv", "modified_at": None}
    inventory["ids"] = len(tables.get("responses", []))
    required = [name for name, field in FetchFacts.model_fields.items() if field.is_required()]
    read = kinds if references is not None else ()
    fetch = dict.fromkeys(required, 0) | {
        "project_id": PROJECT_ID,
        "endpoint_host": "127.0.0.1",
        "is_sandbox": True,
        "mode": "full",
        "started_at": noon,
        "finished_at": noon,
        "outcomes": dict(Counter(row["outcome"] for row in tables.get("responses", []))),
        "list_was_read": listed is not None,
        "scope": ScopeFacts(workspaces=["0"], origin="asked"),
        "sources": {name: SourceFacts(wanted=name in read, was_read=name in read) for name in USAGE_SOURCES}
        | {name: SourceFacts(wanted=table in tables, was_read=table in tables) for name, table in _OTHER_SOURCES},
        "registry": RegistryFacts(namespaces=["team"], origin="images") if "registry_tags" in tables else None,
    }
    return publish(
        day.lake,
        day.partition,
        files,
        run_id=day.run_id,
        started_at=noon,
        # Published at that hour of the day, unless the project has a later publication.
        published_at=max(published_at, newest.published_at) if newest else published_at,
        rebuilt=False,
        inventory=InventoryFacts(**inventory | (inventory_facts or {})),
        fetch=FetchFacts(**fetch | (fetch_facts or {})),
    )


def write_history(day: SnapshotRun, rows: list[dict]) -> None:
    """Write the project's history with these versions; missing values describe a current, living version."""
    path = day.lake.project_table(IMAGE_HISTORY.name, day.partition.project)
    days = [one for one in published_days(day.lake, day.partition.project) if one.manifest.is_complete]
    with day.lake.writer(path, IMAGE_HISTORY, day.run_id, metadata=days_metadata(days)) as writer:
        writer.write(
            rows_of(IMAGE_HISTORY, rows, project_id=PROJECT_ID, is_current=True, is_deleted=False, content_hash="0")
        )


def published_rows(day: SnapshotRun, table: Table) -> list[dict]:
    """Rows of a published table, without the columns that all rows of a day share."""
    with day.lake.table(table.name, day.partition).open("rb") as file:
        read = pq.read_table(file)
    assert set(read["snapshot_date"].to_pylist()) <= {day.partition.date}
    assert set(read["project_id"].to_pylist()) <= {PROJECT_ID}
    return read.drop_columns(["snapshot_date", "project_id"]).to_pylist()


def registry_and_bill(date: str, *tags: str) -> dict[str, list[dict]]:
    """Tables of a registry with these tags (namespace/repository:tag), each of two layers, and of a bill.

    The bill is that of the day before: a day reads no bill of itself.
    """
    day = dt.date.fromisoformat(date) - dt.timedelta(days=1)
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    rows = {"registry_tags": [], "registry_layers": []}
    for number, address in enumerate(sorted(tags)):
        path, tag = address.split(":")
        namespace, repository = path.split("/")
        digest = f"sha256:{number:064}"
        rows["registry_tags"].append(
            {"namespace": namespace, "repository": repository, "tag": tag, "digest": digest, "tag_type": 0}
            | {"config_digest": f"sha256:c{number:063}", "size_bytes": 300, "layers": 2, "downloads": 1}
        )
        rows["registry_layers"] += [
            {"digest": digest, "layer_digest": layer, "size_bytes": size}
            for layer, size in (("sha256:base", 100), (f"sha256:own{number}", 200))
        ]
    line = {"line": 0, "charge_date": day, "charge_period_start": start, "time_zone": "UTC", "kind": "registry"}
    line |= {"charge_period_end": start + dt.timedelta(days=1), "service": "SWR", "currency": "EUR"}
    line |= {"billed_cost": Decimal(3), "source": "focus", "source_sha256": "0", "version": "1"}
    page = {"page": 0, "kind": "tags", "body": b"[]", "body_sha256": hashlib.sha256(b"[]").hexdigest()}
    return {**rows, "registry_pages": [page], "billed_costs": [line]}
