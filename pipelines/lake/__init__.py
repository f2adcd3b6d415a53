"""Where things live: storage, the layout of paths, Parquet files, locks, manifests and all other records."""
