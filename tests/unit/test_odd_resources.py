"""No value of a resource or trace ends a run: whatever a list of the API shows, each item is read and stored."""

import copy
import datetime as dt
import sqlite3
from contextlib import closing
from dataclasses import replace

import orjson
import pytest

from pipelines.snapshot.sources import algorithms, models, notebooks, services, traces, training_jobs, workflows
from pipelines.snapshot.sources.resources import as_time
from pipelines.snapshot.sources.store import ReferenceStore, Trace, TraceStore

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
IMAGE = "swr.example/team/base:v1"
TIME = 1_763_899_200_000
ABOUT = {"name": "n", "workspace_id": "0", "user_name": "u", "owner": "u", "update_at": TIME, "update_time": TIME}
ITEMS = {
    notebooks._reduce: {
        "id": "a",
        **ABOUT,
        "status": "RUNNING",
        "user": {"name": "u"},
        "image": {"id": "i", "swr_path": IMAGE},
        "lease": {"update_at": TIME, "create_at": TIME},
    },
    training_jobs._reduce: {
        "metadata": {"id": "a", **ABOUT, "create_time": TIME},
        "status": {"phase": "Completed", "start_time": TIME, "duration": 1000},
        "algorithm": {"id": "b", "engine": {"image_url": IMAGE}},
        "tasks": [{"algorithm": {"engine": {"image_url": IMAGE}}}],
    },
    algorithms._reduce: {
        "metadata": {"id": "a", **ABOUT, "state": "s"},
        "job_config": {"engine": {"image_url": IMAGE}},
    },
    models._reduce: {"model_id": "a", **ABOUT, "model_name": "m", "model_status": "s", "model_type": "Image"},
    services._reduce_by_model: {"service_id": "a", **ABOUT, "service_name": "s", "status": "r", "transition_at": TIME},
    services._reduce_by_image: {"id": "a", **ABOUT, "status": "running"},
    workflows._reduce: {
        "workflow_id": "a",
        **ABOUT,
        "steps": [{"properties": {"any": [f"run {IMAGE} now"]}}],
        "latest_execution": {"status": "running", "created_at": TIME},
        "last_modified_at": "2026-11-01T00:00:00Z",
    },
    traces._reduce: {
        "trace_id": "a",
        "time": TIME,
        "trace_name": "t",
        "resource_id": "i",
        "resource_name": "n",
        "resource_type": "image",
        "service_type": "ModelArts",
        "user": '{"name": "u"}',
        "source_ip": "127.0.0.1",
        "trace_rating": "normal",
    },
}
UNIT = {"image": {"id": "i", "swr_path": IMAGE}}
DETAILS = {
    models._add_images: (models._reduce, {"source_copy": "true", "source_location": IMAGE, "image_address": IMAGE}),
    services._add_models: (services._reduce_by_model, {"config": [{"model_id": "m"}]}),
    services._add_images: (
        services._reduce_by_image,
        {
            "last_used_time": TIME,
            "version": {"instance_groups": [{"last_used_time": TIME, "unit_configs": [UNIT]}]},
        },
    ),
}
ODD = [
    *(None, True, 0, -1, 1e308, 10**30, "", " ", "x" * 70_000, [], {}, [[None]], {"a": [1]}),
    *("\ud83d", "a\0b", "9" * 5_000, " " * 30 + "1", "\u0661\u0662", "a/" * 5_000 + ":" * 5_000),
    *("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59", "0001-01-01"),
    *(orjson.Fragment(b"1e999"), orjson.Fragment(b"9" * 5_000)),
]


def changed(value):
    """The value with each part, itself included, replaced by each of `ODD`."""
    yield from ODD
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for new in changed(part):
            other = copy.copy(value)
            other[key] = new
            yield other


def stored(found):
    """How many rows are stored of resources or traces, each as if it were another one."""
    with closing(sqlite3.connect(":memory:")) as database:
        store = (TraceStore if isinstance(found[0], Trace) else ReferenceStore)(database)
        store.add([replace(one, id=f"{number}") for number, one in enumerate(found)])
        if isinstance(store, ReferenceStore):
            store.resolve()
        return sum(batch.num_rows for batch in store.batches(NOW.date(), "p"))


@pytest.mark.parametrize("reduce", ITEMS, ids=lambda reduce: f"{reduce.__module__.rpartition('.')[2]}{reduce.__name__}")
def test_item_with_any_value_is_read_and_stored(reduce):
    items = [item for item in changed(ITEMS[reduce]) if isinstance(item, dict)]
    found = [reduce(item, NOW) for item in items]
    assert len(found) == len(items) > 100
    # A trace may be of something else, or have no time that can be read. The lists of some kinds name no image.
    assert (stored([one for one in found if one is not None and not isinstance(one, str)]) > 0) == (
        reduce not in (models._reduce, services._reduce_by_model, services._reduce_by_image)
    )


@pytest.mark.parametrize("add", DETAILS, ids=lambda add: f"{add.__module__.rpartition('.')[2]}{add.__name__}")
def test_details_with_any_value_are_read_and_stored(add):
    reduce, details = DETAILS[add]
    resource = reduce(ITEMS[reduce], NOW)
    assert stored([add(resource, changed_ones) for changed_ones in changed(details) if isinstance(changed_ones, dict)])


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (TIME, NOW.replace(year=2025)),
        (f" {TIME} ", NOW.replace(year=2025)),
        (" " * 30 + str(TIME), NOW.replace(year=2025)),
        ("2025-11-23T12:00:00Z", NOW.replace(year=2025)),
        ("2025-11-23T20:00:00+08:00", NOW.replace(year=2025)),
        ("9999-12-31T23:59:59-14:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9" * 5_000, None),
        (True, None),
        ("soon", None),
    ],
)
def test_time_is_read_as_clouds_write_it(value, time):
    assert as_time(value) == time
