"""Keeps what the registry showed in SQLite tables until the day is staged: tags, and the layers of each manifest."""

import datetime as dt
import sqlite3
from collections.abc import Iterable, Iterator

import orjson
import pyarrow as pa

from pipelines.snapshot.image_list import batches_of, microseconds
from pipelines.snapshot.sources.registry_bodies import Repository, Tag
from pipelines.tables import REGISTRY_LAYERS, REGISTRY_TAGS

_ROWS_A_BATCH = 10_000
_MANIFESTS_A_BATCH = 1_000
_TABLES = {
    "registry_repositories": "(namespace TEXT, repository TEXT, downloads INTEGER,"
    " PRIMARY KEY (namespace, repository)) WITHOUT ROWID",
    "registry_tags": "(namespace TEXT, repository TEXT, tag TEXT, digest TEXT, config_digest TEXT, size_bytes INTEGER,"
    " tag_type INTEGER, downloads INTEGER, created INTEGER, updated INTEGER, observed_at INTEGER,"
    " PRIMARY KEY (namespace, repository, tag)) WITHOUT ROWID",
    # As JSON: [[layer digest, bytes], ...] in order.
    "registry_manifests": "(digest TEXT PRIMARY KEY, layers BLOB NOT NULL)",
    "registry_lists": "(digest TEXT PRIMARY KEY, namespace TEXT, repository TEXT, manifests BLOB)",
}


class RegistryStore:
    """Repositories, tags and manifests, each once: the first one counts."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        for name, columns in _TABLES.items():
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns}")
        self._db.execute("CREATE INDEX IF NOT EXISTS registry_tags_digest ON registry_tags (digest)")

    def clear(self) -> None:
        """Drop everything."""
        for name in _TABLES:
            self._db.execute(f"DELETE FROM {name}")  # noqa: S608  (names of ours)

    def want(self, named: Iterable[tuple[str, str]]) -> None:
        """Note repositories that images name: namespace and repository."""
        self._db.executemany("INSERT OR IGNORE INTO registry_repositories VALUES (?, ?, NULL)", named)

    def note(self, repositories: Iterable[Repository]) -> None:
        """Note repositories that the registry lists."""
        self._db.executemany("INSERT OR REPLACE INTO registry_repositories VALUES (?, ?, ?)", repositories)

    def namespaces(self) -> list[str]:
        """The namespaces of all repositories, in order."""
        rows = self._db.execute("SELECT DISTINCT namespace FROM registry_repositories ORDER BY namespace")
        return [namespace for (namespace,) in rows]

    def repositories(self, namespaces: Iterable[str]) -> Iterator[Repository]:
        """The repositories of some namespaces, in order; others may be stored meanwhile."""
        for namespace in namespaces:
            last = ""
            while True:
                page = self._db.execute(
                    "SELECT namespace, repository, downloads FROM registry_repositories"
                    " WHERE namespace = ? AND repository > ? ORDER BY repository LIMIT ?",
                    (namespace, last, _ROWS_A_BATCH),
                ).fetchall()
                if not page:
                    break
                last = page[-1][1]
                yield from (Repository(*row) for row in page)

    def add(self, repository: Repository, tags: list[Tag], observed_at: dt.datetime) -> None:
        """Store the tags of a page, and what their manifests say."""
        self._db.executemany(
            "INSERT OR IGNORE INTO registry_tags VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    repository.namespace,
                    repository.name,
                    one.tag,
                    one.digest,
                    one.content.config_digest,
                    one.size_bytes,
                    one.tag_type,
                    repository.downloads,
                    None if one.created is None else microseconds(one.created),
                    None if one.updated is None else microseconds(one.updated),
                    microseconds(observed_at),
                )
                for one in tags
            ],
        )
        for one in tags:
            if one.digest is None:
                continue
            if one.content.layers is not None:
                self.set_layers(one.digest, one.content.layers)
            elif one.content.manifests:
                self._db.execute(
                    "INSERT OR IGNORE INTO registry_lists VALUES (?, ?, ?, ?)",
                    (one.digest, repository.namespace, repository.name, orjson.dumps(one.content.manifests)),
                )

    def set_layers(self, digest: str, layers: Iterable[tuple[str, int]]) -> None:
        """Store the layers of a manifest."""
        self._db.execute(
            "INSERT OR IGNORE INTO registry_manifests VALUES (?, ?)", (digest, orjson.dumps(sorted(layers)))
        )

    def layers(self, digest: str) -> dict[str, int] | None:
        """The layers of a manifest; None if they are not known."""
        row = self._db.execute("SELECT layers FROM registry_manifests WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else dict(orjson.loads(row[0]))

    def lists(self) -> list[tuple[str, str, str, list[str]]]:
        """The manifest lists: digest, namespace, repository, and the digests that each lists."""
        rows = self._db.execute("SELECT digest, namespace, repository, manifests FROM registry_lists ORDER BY digest")
        return [(digest, namespace, repository, orjson.loads(listed)) for digest, namespace, repository, listed in rows]

    def unknown(self) -> Iterator[tuple[str, str, int]]:
        """Namespace, repository, and how many of its tags have layers that are not known, where any have."""
        yield from self._db.execute(
            "SELECT namespace, repository, count(*) FROM registry_tags LEFT JOIN registry_manifests USING (digest)"
            " WHERE layers IS NULL GROUP BY namespace, repository ORDER BY namespace, repository"
        )

    def tags(self) -> int:
        """The number of tags."""
        return int(self._db.execute("SELECT count(*) FROM registry_tags").fetchone()[0])

    def tag_batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """All tags, in the order of their key, as batches of the `registry_tags` table."""
        cursor = self._db.execute(
            "SELECT namespace, repository, tag, digest, config_digest, size_bytes,"
            " json_array_length(CAST(layers AS TEXT)), tag_type, downloads, created, updated, observed_at"
            " FROM registry_tags LEFT JOIN registry_manifests USING (digest) ORDER BY namespace, repository, tag"
        )
        yield from batches_of(cursor, REGISTRY_TAGS, _ROWS_A_BATCH, snapshot_date, project_id)

    def layer_batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """The layers of the manifests that tags point to, as batches of the `registry_layers` table."""
        cursor = self._db.execute(
            "SELECT digest, layers FROM registry_manifests WHERE EXISTS"
            " (SELECT 1 FROM registry_tags WHERE registry_tags.digest = registry_manifests.digest) ORDER BY digest"
        )
        schema = REGISTRY_LAYERS.schema
        while manifests := cursor.fetchmany(_MANIFESTS_A_BATCH):
            rows = [(digest, *layer) for digest, layers in manifests for layer in orjson.loads(layers)]
            if rows:
                columns = [[snapshot_date] * len(rows), [project_id] * len(rows), *zip(*rows, strict=True)]
                arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
