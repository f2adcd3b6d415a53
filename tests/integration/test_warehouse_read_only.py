"""A warehouse that this user may only read."""

import tempfile
from pathlib import Path

import duckdb
import pytest
from permissions import as_nobody

from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake
from pipelines.warehouse import loading as warehouse


def test_read_only_file_is_one_sentence():
    # Not in pytest's own directory, which other users may not enter: the test drops the rights of root.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "w.duckdb"
        duckdb.connect(path).close()
        path.chmod(0o444)
        with as_nobody(), pytest.raises(ConfigurationError) as caught, warehouse._open(Lake("lake"), str(path), 1):
            pass
    assert str(caught.value) == (
        f"The warehouse {path} cannot be opened: Permission denied at {directory}/.w.duckdb.lock. Correct "
        "IMAGE_SNAPSHOTS_WAREHOUSE, or the permissions of the file and its directory."
    )
