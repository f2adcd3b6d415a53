"""Published days of few rows that `verify` can prove completely: their tables follow from their stored responses."""

import datetime as dt
import hashlib
import json

import pyarrow.parquet as pq
from published_days import PROJECT_ID, publish_snapshot, registry_and_bill, rows_of

from pipelines.lake.layout import Partition
from pipelines.lake.records import Record, record_bytes
from pipelines.maintenance.verify import verify
from pipelines.settings import Settings
from pipelines.snapshot.publish import build_tables
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import RESPONSES

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")


def proved_day(date, project="default", **settings):
    """A run in the working directory's lake whose clock shows noon of its day."""
    noon = dt.datetime.combine(dt.date.fromisoformat(date), dt.time(12), dt.UTC)
    return SnapshotRun(Partition(noon.date(), project), f"run-{date}", Settings(lake="lake", **settings), lambda: noon)


def publish_proved(day, visibilities, hour=12, *, with_registry=False):
    """Publish a day of images with these visibilities, from matching responses; `with_registry`: and a bill."""
    noon = dt.datetime.combine(day.partition.date, dt.time(12), dt.UTC)
    responses = []
    for id_, visibility in sorted(visibilities.items()):
        body = json.dumps({"id": id_, "name": f"n{id_[0]}", "visibility": visibility, "size": 1}).encode()
        digest = hashlib.sha256(body).hexdigest()
        responses.append({"id": id_, "outcome": "ok", "body": body, "body_sha256": digest, "fetched_at": noon})
    staged = day.lake.staging(day.partition) / "checkpoint"
    with day.lake.writer(staged / "responses.parquet", RESPONSES, day.run_id) as writer:
        shared = {"snapshot_date": day.partition.date, "project_id": PROJECT_ID, "observed_at": noon}
        writer.write(rows_of(RESPONSES, responses, **shared, attempts=1, elapsed_ms=1))
    build_tables(day.lake, staged / "responses.parquet", staged, day.run_id)
    made = {
        name: pq.ParquetFile(staged / f"{name}.parquet").read().to_pylist()
        for name in ("images", "image_values", "image_tags")
    }
    page = json.dumps({"data": [{"id": id_} for id_ in sorted(visibilities)]}).encode()
    manifest = publish_snapshot(
        day,
        hour=hour,
        inventory=[{"id": id_, "owner": "o"} for id_ in sorted(visibilities)],
        responses=responses,
        **made,
        list_pages=[{"page": 0, "body": page, "body_sha256": hashlib.sha256(page).hexdigest()}],
        references=[{"resource_id": "n", "image_id": A, "strength": "running"}],
        image_traces=[{"trace_id": "t", "time": noon, "resource_id": A}],
        **(registry_and_bill(str(day.partition.date), "team/a:1") if with_registry else {}),
    )
    for left in sorted(day.lake.staging(day.partition).rglob("*.*")):
        left.unlink()
    return manifest


def forge_record(path, change):
    """Forge a record like somebody who knows about hashes: `change` edits it, then its own hash is corrected."""
    said = json.loads(path.read_text())
    change(said)

    class Forged(Record, extra="allow"):
        pass

    path.write_bytes(record_bytes(Forged.model_validate(said)))


def problems(lake):
    """What verify finds in a whole lake."""
    return [(problem.path, problem.sentence) for problem in verify(lake, lake.contents.partitions())]
