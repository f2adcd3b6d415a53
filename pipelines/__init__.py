"""HOW the snapshot is made, in plain Python: nothing here knows the orchestrator.

The modules in the order in which a day passes through them:

``settings``, ``environment``, ``cron``, ``text_files``  what the user stated, and how it may be written
``credentials``, ``clouds_file``, ``endpoints``  who the user is, and where credentials may be sent
``secret_urls``, ``proxies``, ``preflight``  URLs that may hold a secret; what is checked before anything is asked
``plain_text``                 others' text made safe to print
``inventory``, ``inventory_sources``  which image ids exist, according to the user
``transport``, ``exchange``     one request and its whole answer
``json_text``                  the one parser for whatever the cloud answers
``outcomes``, ``answers``      what an answer means
``throttle``, ``shared_rate``, ``retries``  how fast requests may leave; when one is sent again, and when no more
``signing``, ``identity``, ``authentication``  who we are to the API
``paging``, ``api``            its lists; the one client of the ModelArts API
``absence``                    what an inventory lacks, and whether it may be believed
``fetch``                      one outcome per id, put on disk as it arrives
``listed``, ``changed``        change-only days: what the API's list still confirms
``columns``                    the one table of columns that every schema derives from
``bodies``, ``normalise``      one body -> its values; stored responses -> the `images` frame
``object_storage``, ``object_connection``  a lake in an object store; whom its client trusts, and by which proxy
``names``, ``listing``, ``locks``, ``leases``  what names stand for; what there is; who holds it
``stored_files``, ``parquet_files``  files that appear whole or not at all; rows in them in bounded memory
``lake``, ``records``, ``manifest``, ``clock``  where tables live; what is written down about them
``publish``                    validate, replace atomically, seal with a manifest
``connection``, ``day``         the steps of a day, as an orchestrator calls them
``memory``                      what a step has used and freed goes back to the system
``sql_files``, ``analysis``      the SQL that people read; a published day in DuckDB
``history``, ``reconciliation``, ``usage``, ``audit``, ``prices``, ``costs``  what is derived from several days
``suppression_targets``        suppressions of what there is not
``derived``                    all of these for the days that are due, and their seal
``rule_process``, ``rule_worker``  audit rules in a process of their own
``query``, ``lake_files``      the whole lake in SQL, for people; all that SQL can open
``warehouse``, ``warehouse_ddl``, ``warehouse_duckdb``, ``warehouse_postgres``  the days in a warehouse
``report``, ``report_data``, ``report_headline``, ``report_words``, ``report_charts``  a day on one page, for people
``verify``, ``verify_files``, ``verify_records``, ``verify_tables``, ``verify_derived``, ``verify_reports``,
``verify_witnesses``, ``witness``  prove what was published, or name what was changed; hashes noted elsewhere
``status``, ``failures``       which days are there; why one is not
``sandbox``                    a ModelArts-compatible endpoint on loopback
"""
