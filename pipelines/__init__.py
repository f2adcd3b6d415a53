"""HOW the snapshot is made, in plain Python: nothing here knows the orchestrator.

Each room is a package, and its own docstring says what belongs in it. A room imports only rooms above it in this list;
`tests/unit/test_rooms.py` has the arrows.

``errors``, ``plain_text``     what can end a run, as one sentence that is safe to print
``tables``                     the one table of columns that every schema derives from, and the outcomes
``inputs``                     how what a user states may be written: files, environment, URLs, proxies
``settings``                   what the user stated
``bodies``                     what the cloud's answers say
``inventory``                  which image ids exist, according to the user
``cloud``                      talking to the cloud: credentials, tokens, HTTP, retries, rate limits, the client
``lake``                       where things live: storage, paths, Parquet files, locks, manifests and all other records
``run``                        what every step of one run of one day is told
``engine``                     what runs SQL: DuckDB, Spark
``snapshot``                   the steps of a day: inventory, fetch, normalise, publish
``derive``                     what follows from several days: history, changes, usage, audit, costs
``query``                      the whole lake in SQL, for people
``warehouse``                  the days in a warehouse
``report``                     a day on one page
``maintenance``                verify, compaction, retention, status
``preflight``                  what a run checks before it asks anything
``data_dictionary``            the documentation of the tables
``sandbox``                    a ModelArts-compatible endpoint on loopback; no room imports it
"""
