"""What all records have in common: JSON that states the SHA-256 of itself, and the chains that records form.

A record's own SHA-256 shows damage to any byte of it. People who change a record can correct that too: they are found
by the chain, because the next record names the SHA-256 of the whole file. What a record says belongs to the module that
writes it.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import orjson
from pydantic import BaseModel, ConfigDict

from pipelines.lake.layout import Lake
from pipelines.lake.stored_files import LakePath, exists, storage_errors

UNSTATED = "0" * 64
_STATED = re.compile(rb'"content_sha256": ?"([0-9a-f]{64})"')


class Facts(BaseModel):
    """What is written down: a record, or a part of one. A field that this version does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Record(Facts):
    """A record; `content_sha256` is the SHA-256 of its file with zeros in the place of these 64 digits."""

    content_sha256: str = UNSTATED


R = TypeVar("R", bound=Record)


def with_own_sha256(record: R) -> R:
    """The same record with its `content_sha256`, to be written by `record_bytes` as it is."""
    blank = record.model_copy(update={"content_sha256": UNSTATED})
    return blank.model_copy(update={"content_sha256": hashlib.sha256(record_bytes(blank)).hexdigest()})


def record_bytes(record: Record) -> bytes:
    """What a record's file holds."""
    return record.model_dump_json(indent=1).encode() + b"\n"


def is_whole(content: bytes, where: re.Pattern[bytes] = _STATED) -> bool:
    """Whether a file has the SHA-256 that it states of itself, in the first group of `where`."""
    return where.search(content) is not None and state_sha256(content, where) == content


def state_sha256(content: bytes, where: re.Pattern[bytes] = _STATED) -> bytes:
    """A file's content with its own SHA-256, computed with zeros in its place, where the first such place is."""
    stated = where.search(content)
    if stated is None:
        raise ValueError("there is no place for the SHA-256")
    before, after = content[: stated.start(1)], content[stated.end(1) :]
    digest = hashlib.sha256(before + UNSTATED.encode() + after).hexdigest()
    return before + digest.encode() + after


# Chains


@dataclass(frozen=True, slots=True)
class Link:
    """A record in its chain: SHA-256 of its file, that of the record before it, and when it was written."""

    sha256: str
    previous: str | None
    at: dt.datetime


def newest(links: Iterable[Link]) -> str | None:
    """SHA-256 of the record that no other follows; None without records."""
    links = list(links)
    followed = {link.previous for link in links}
    heads = [(link.at, link.sha256) for link in links if link.sha256 not in followed]
    return max(heads)[1] if heads else None


def chain_of_derived(lake: Lake, project: str) -> dict[LakePath, bytes]:
    """All derived manifests that a project ever had."""
    current = {
        lake.derived_manifest(partition): content for partition, content in lake.derived_manifests(project).items()
    }
    return current | lake.superseded_derived(project)


def newest_derived_record(lake: Lake, project: str) -> str | None:
    """SHA-256 of the derived manifest that a project wrote last; None when there is none."""
    return _newest_of(chain_of_derived(lake, project).values())


def _newest_of(records: Iterable[bytes]) -> str | None:
    return newest(link for content in records if (link := derived_link(content)))


def newest_history_sha256(lake: Lake, project: str) -> str | None:
    """SHA-256 of `image_history` in the derived manifest that a project wrote last; None without one."""
    records = chain_of_derived(lake, project).values()
    newest_record = _newest_of(records)
    for content in records:
        if hashlib.sha256(content).hexdigest() == newest_record:
            return _history_sha256(content)
    return None


def coming_history_sha256(lake: Lake, project: str) -> str | None:
    """SHA-256 of `image_history` in the record that a derivation was about to write when it was cut off, or None.

    Only a record counts that follows the newest one.
    """
    path = lake.pending_derived_manifest(project)
    if not exists(path):
        return None
    with storage_errors(path):
        content = path.read_bytes()
    link = derived_link(content)
    if link is None or link.previous != newest_derived_record(lake, project):
        return None
    return _history_sha256(content)


def _history_sha256(derived_manifest: bytes) -> str | None:
    digest = orjson.loads(derived_manifest).get("history", {}).get("sha256")
    return digest if isinstance(digest, str) else None


def derived_link(content: bytes) -> Link | None:
    """A derived manifest in its chain; None when it is damaged, and so to be derived again."""
    if not is_whole(content):
        return None
    try:
        read = orjson.loads(content)
        if not isinstance(read, Mapping):
            return None
        at = dt.datetime.fromisoformat(read["derived_at"])
        previous = read["previous_record_sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    if at.tzinfo is None or not isinstance(previous, str | None):
        return None
    return Link(hashlib.sha256(content).hexdigest(), previous, at)
