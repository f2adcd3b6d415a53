"""HOW the snapshot is made, in plain Python: nothing here knows the orchestrator.

The modules in the order in which a day passes through them:

``settings``, ``credentials``, ``endpoints``  what the user stated, and where credentials may be sent
``inventory``, ``inventory_sources``  which image ids exist, according to the user
``transport``, ``exchange``     one request and its whole answer
``outcomes``, ``answers``      what an answer means
``throttle``, ``shared_rate``, ``retries``  how fast requests may leave; when one is sent again, and when no more
``signing``, ``identity``, ``authentication``  who we are to the API
``paging``, ``api``            its lists; the one client of the ModelArts API
``fetch``                      one outcome per id, put on disk as it arrives
``listed``, ``changed``        change-only days: what the API's list still confirms
``columns``                    the one table of columns that every schema derives from
``bodies``, ``normalise``      one body -> its values; stored responses -> the `images` frame
``lake``, ``manifest``, ``publish``  where tables live; validate, replace atomically, seal with a manifest
``connection``, ``day``         the steps of a day, as an orchestrator calls them
``memory``                      what a step has used and freed goes back to the system
``sql_files``, ``analysis``      the SQL that people read; a published day in DuckDB
``history``, ``reconciliation``, ``usage``, ``audit``, ``prices``, ``costs``  what is derived from several days
``derived``                    all of these for the days that are due, and their seal
``query``                      the whole lake in SQL, for people
``warehouse``, ``warehouse_ddl``, ``warehouse_duckdb``, ``warehouse_postgres``  the days in a warehouse
``report``, ``report_data``, ``report_headline``, ``report_words``, ``report_charts``  a day on one page, for people
``verify``, ``status``         prove a published day or name what was changed; which days are there
``sandbox``                    a ModelArts-compatible endpoint on loopback
"""
