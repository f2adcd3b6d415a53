"""Bodies of images, and what normalising one of them gives."""

import hashlib
import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from pipelines.snapshot.normalise import normalise_images, to_arrow
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, RESPONSES

DAY = date(2026, 3, 2)
OBSERVED = datetime(2026, 3, 2, 6, 30, tzinfo=UTC)
ID = "7c1de1f0-2a44-4b0e-9d4d-0f6a3c5b8e21"
OBSERVED_MS = int(OBSERVED.timestamp() * 1000)

# The two forms of bodies that the API sends: sparse, and with every field.
SPARSE = {
    "arch": "x86_64",
    "create_at": 1_700_000_000_123,
    "description": "Sequence models, one GPU",
    "dev_services": ["SSH", "NOTEBOOK"],
    "id": ID,
    "name": "sequence-trainer",
    "resource_categories": ["GPU", "CPU"],
    "service_type": "COMMON",
    "status": "ACTIVE",
    "swr_path": "swr.region-1.example.com/team-a/sequence_trainer:release-4",
    "tag": "release-4",
    "type": "BUILD_IN",
    "update_at": 1_700_000_000_123,
    "workspace_id": "0",
}
FULL = SPARSE | {
    "namespace": "team-a",
    "origin": "CUSTOMIZE",
    "status_message": "",
    "visibility": "PRIVATE",
    "flavor_type": "general",
    "size": 4_096,
    "support_res_categories": ["CPU"],
    "show_name": "Sequence trainer",
    "show_tag": "4",
    "swr_instance_id": "2f0a7c66-91f5-4c0e-a6cf-3d5f2b1d8e40",
    "tags": [{"key": "owner", "value": "ana"}, {"key": "Stage", "value": "prod"}],
}


def responses(*bodies: Any, outcome: str = "ok", id_: str = ID, observed_at: datetime = OBSERVED) -> pa.Table:
    sent = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    rows = [
        {
            "snapshot_date": DAY,
            "project_id": "p1",
            "id": id_,
            "outcome": outcome,
            "attempts": 1,
            "elapsed_ms": 5,
            "observed_at": observed_at,
            "body": body,
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
        for body in sent
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSES.schema)


def row_of(body: Any, **kwargs: Any) -> dict[str, Any]:
    table = to_arrow(normalise_images(responses(body, **kwargs)).images, IMAGES)
    (row,) = table.to_pylist()
    return row


def values_of(body: Any) -> list[tuple[str, int, str]]:
    table = to_arrow(normalise_images(responses(body)).image_values, IMAGE_VALUES)
    return [(row["field"], row["position"], row["value"]) for row in table.to_pylist()]


def tags_of(body: Any) -> dict[str, str | None]:
    table = to_arrow(normalise_images(responses(body)).image_tags, IMAGE_TAGS)
    return {row["key"]: row["value"] for row in table.to_pylist()}


def hash_of(body: Any) -> str:
    return row_of(body)["content_hash"]
