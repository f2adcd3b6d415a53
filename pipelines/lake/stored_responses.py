"""What is read from a day's `responses` besides bodies: the ids without a response, and the leaves of the hash tree."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.parquet_files import read_batches
from pipelines.lake.records import Facts
from pipelines.lake.storage import LakePath

_BATCH_ROWS = 16_384


class FailedId(Facts):
    """An id without a response, with the last error."""

    id: str
    error_code: str | None


def failed_ids(responses: LakePath) -> list[FailedId]:
    """The ids of a `responses` file whose requests failed, by id."""
    return [
        FailedId(id=row["id"], error_code=row["error_code"])
        for batch in read_batches(responses, _BATCH_ROWS, ["id", "outcome", "error_code"])
        for row in batch.filter(pc.equal(batch["outcome"], "failed")).to_pylist()
    ]


def response_leaves(responses: LakePath) -> Iterator[bytes]:
    """The leaves of the hash tree over a `responses` file, one per row, in its order.

    A leaf is four lines with line feeds between them: outcome, `observed_at` in microseconds since 1970, `body_sha256`
    (empty without a body), and the id, which comes last because it may have line feeds itself.
    """
    for batch in read_batches(responses, _BATCH_ROWS, ["id", "outcome", "observed_at", "body_sha256"]):
        leaves = pc.binary_join_element_wise(
            batch["outcome"],
            batch["observed_at"].cast(pa.int64()).cast(pa.string()),
            pc.fill_null(batch["body_sha256"], ""),
            batch["id"],
            "\n",
        )
        yield from leaves.cast(pa.binary()).to_pylist()
