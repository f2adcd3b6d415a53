"""A table's file is encoded while its rows are made: it is complete and in order, or does not appear."""

import random
import resource
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import StorageError
from pipelines.lake.layout import Lake
from pipelines.tables import IMAGE_VALUES


def batch_of(numbers):
    """Rows that compress badly."""
    rows = [
        {
            "snapshot_date": None,
            "project_id": "p",
            "id": f"{number:08}",
            "field": "f",
            "position": number,
            "value": text,
        }
        for number, text in ((number, random.Random(number).randbytes(500).hex()) for number in numbers)
    ]
    table = pa.Table.from_pylist(rows, IMAGE_VALUES.schema)
    dates = pa.array([20_000] * len(rows), pa.int32()).cast(pa.date32())
    return table.set_column(0, IMAGE_VALUES.schema.field(0), dates)


@contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rows_keep_their_order(tmp_path):
    lake = Lake(str(tmp_path))
    path = lake.root / "t.parquet"
    with lake.writer(path, IMAGE_VALUES, "run", row_group_rows=10) as writer:
        for first in range(0, 95, 5):
            writer.write(batch_of(range(first, first + 5)))
    with pq.ParquetFile(path) as file:
        assert file.read(["position"])["position"].to_pylist() == list(range(95))
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [*[10] * 9, 5]


@pytest.mark.parametrize("groups", [1, 8])
def test_failed_row_group_fails_the_table_and_leaves_no_file(tmp_path, groups):
    lake = Lake(str(tmp_path))
    path = lake.root / "t.parquet"
    with (
        pytest.raises(StorageError, match="The storage failed at"),
        files_of_at_most(20_000),
        lake.writer(path, IMAGE_VALUES, "run", row_group_rows=100) as writer,
    ):
        for group in range(groups):
            writer.write(batch_of(range(100 * group, 100 * group + 100)))
    assert list(tmp_path.iterdir()) == []
