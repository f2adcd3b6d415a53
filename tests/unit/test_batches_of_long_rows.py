"""Batches are bounded by bytes as well as by rows, for rows of any length."""

import datetime as dt
import hashlib
import time
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cloud.classification import ImageResponse
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.parquet_files import BATCH_BYTES, ROW_GROUP_BYTES, open_parquet, read_batches
from pipelines.maintenance.verify_tables import first_difference
from pipelines.snapshot.checkpoint import open_checkpoint
from pipelines.snapshot.checkpoint_sinks import bounded
from pipelines.snapshot.fetch import Progress, _Writer
from pipelines.snapshot.publish import build_tables
from pipelines.tables import RESPONSES, Outcome

DATE = dt.date(2026, 11, 23)
NOON = dt.datetime.combine(DATE, dt.time(12), dt.UTC)
LONG = 2 * 2**20
COUNT = 40


def ids(count=COUNT):
    return [f"00000000-0000-4000-8000-{number:012}" for number in range(count)]


def answer(id_):
    body = f'{{"id":"{id_}","description":"{"x" * LONG}"}}'.encode()
    return ImageResponse(id_, Outcome.OK, 200, None, None, 1, 5, NOON, body)


@pytest.fixture
def staging(tmp_path):
    return Lake(str(tmp_path / "lake")).staging(Partition(DATE, "default"))


def test_checkpoint_writes_responses_when_many_bytes_wait(staging):
    sizes = []
    with closing(open_checkpoint(staging, "a")) as store:
        put = store.put
        store.put = lambda answers: (sizes.append(sum(len(a.body) for a in answers)), put(answers))
        writer = _Writer(store, Progress(COUNT, 0, time.monotonic()), lambda _: None)
        for id_ in ids():
            writer.add(answer(id_))
        writer.flush()
        assert sum(sizes) > COUNT * LONG
        assert max(sizes) < BATCH_BYTES + 2 * LONG


def test_long_responses_reach_the_tables_in_bounded_batches(staging, tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    path = lake.root / "responses.parquet"
    with closing(open_checkpoint(staging, "a")) as store, lake.writer(path, RESPONSES, "run-1") as writer:
        store.want(iter([ids()]))
        for id_ in ids():
            store.put([answer(id_)])
        for batch in store.batches(DATE, "p1", []):
            assert batch.nbytes < BATCH_BYTES + 2 * LONG
            writer.write(batch)
    with open_parquet(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    assert sum(group.num_rows for group in groups) == COUNT
    assert len(groups) > 1
    assert max(group.total_byte_size for group in groups) < ROW_GROUP_BYTES + BATCH_BYTES + 2 * LONG
    batches = list(read_batches(path, 10_000))
    assert [id_ for batch in batches for id_ in batch["id"].to_pylist()] == ids()
    assert max(batch.nbytes for batch in batches) < BATCH_BYTES + LONG
    # Short columns are read by rows.
    assert [batch.num_rows for batch in read_batches(path, 10_000, ["id"])] == [group.num_rows for group in groups]
    found = build_tables(lake, path, lake.root, "run-1")
    assert found.anomalies == {"description:too_long": COUNT}
    hashes = [
        d for batch in read_batches(lake.root / "images.parquet", 100) for d in batch["response_sha256"].to_pylist()
    ]
    assert hashes == [hashlib.sha256(answer(id_).body).hexdigest() for id_ in ids()]


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        ([1, 1, 1], 2, [[1, 1], [1]]),
        ([BATCH_BYTES, 1, 1], 9, [[BATCH_BYTES], [1, 1]]),
        ([1, BATCH_BYTES - 1, 0], 9, [[1, BATCH_BYTES - 1], [0]]),
        ([], 9, []),
    ],
)
def test_batches_end_at_their_limit_of_items_or_bytes(sizes, most, expected):
    assert list(bounded(sizes, lambda size: size, most)) == expected


def test_equal_rows_in_other_row_groups_are_no_difference(tmp_path):
    table = pa.table({"id": ids(100), "n": list(range(100))})
    pq.write_table(table, tmp_path / "a", row_group_size=7)
    pq.write_table(table, tmp_path / "b", row_group_size=30)
    assert first_difference(tmp_path / "a", tmp_path / "b") is None
    pq.write_table(table.slice(0, 99), tmp_path / "b")
    assert first_difference(tmp_path / "a", tmp_path / "b") == "the number of rows"
    changed = table.set_column(1, "n", pa.array([*range(99), 0]))
    pq.write_table(changed, tmp_path / "b", row_group_size=30)
    assert first_difference(tmp_path / "a", tmp_path / "b") == f"n of {ids(100)[-1]}"
