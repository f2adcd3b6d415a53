"""HOW snapshots are made, in plain Python without the orchestrator.

Each room is a package; its docstring says what belongs in it. A room imports only rooms above it in this list;
`tests/unit/test_rooms.py` has the allowed imports.

``errors``, ``plain_text``     errors that end a run, each a sentence that is safe to print
``tables``                     the definition of all tables and columns, and the outcomes
``inputs``                     parsing of user input: files, environment, URLs, proxies
``settings``                   the settings
``bodies``                     parsing of response bodies
``inventory``                  the user's inventory of image ids
``cloud``                      the cloud: credentials, tokens, HTTP, retries, rate limits, the API client
``lake``                       the lake: storage, paths, Parquet files, locks, manifests and all other records
``memory``                     freed memory, and how it goes back to the system
``run``                        one run of one partition, as every step sees it
``engine``                     engines that run SQL: DuckDB, Spark
``snapshot``                   the steps of a run: inventory, fetch, normalise, publish
``derive``                     tables derived from several days: history, changes, usage, audit, costs
``query``                      SQL queries over the whole lake
``warehouse``                  loading into a warehouse
``catalog``                    copying into an Iceberg catalog
``report``                     a day on one HTML page
``maintenance``                verify, compaction, retention, status
``notify``                     notifications: what is new, and its way to webhooks
``preflight``                  checks before a run
``data_dictionary``            the documentation of the tables
``sandbox``                    a ModelArts-compatible endpoint on loopback; no room imports it

For notebooks: `from pipelines import open_lake`.
"""

import os
from typing import TYPE_CHECKING, Any

# Arrow's own allocators keep much of what is freed. It reads this once, when it is first used.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

if TYPE_CHECKING:
    from pipelines.query.reader import open_lake

__all__ = ["open_lake"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: every other import of this package would load the query engine.
    if name == "open_lake":
        from pipelines.query.reader import open_lake  # noqa: PLC0415

        return open_lake
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
