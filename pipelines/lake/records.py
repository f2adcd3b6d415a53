"""What all records have in common: one base, one reader with one policy for damage, one writer; and chains of records.

A record is JSON that states the SHA-256 of itself, which shows damage to any byte of it. A person who changes a record
can correct that, too: the chain shows it, because the next record names the SHA-256 of the whole file. What a record
says belongs to the module of its kind.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar, overload

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import StorageError
from pipelines.lake.storage import LakePath, storage_errors

UNSTATED = "0" * 64
_STATED = re.compile(rb'"content_sha256": ?"([0-9a-f]{64})"')


class Facts(BaseModel):
    """What is written down: a record, or a part of one. A field that this version does not know is damage.

    Times are `AwareDatetime`: a time without a zone is damage, too, and cannot be compared with others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class Record(Facts):
    """A record; in its file, `content_sha256` is the SHA-256 of the file with zeros in the place of these 64 digits."""

    content_sha256: str = UNSTATED


class Evidence(Facts):
    """Facts that cannot be made again.

    `damaged` is the sentence that a damaged file of them ends in, with places for `path` and `field`.
    """

    damaged: ClassVar[str]


F = TypeVar("F", bound=Facts)
E = TypeVar("E", bound=Evidence)


@overload
def parse_record(model: type[E], content: bytes, path: LakePath) -> E: ...


@overload
def parse_record(model: type[F], content: bytes, path: LakePath) -> F | None: ...


def parse_record(model: type[F], content: bytes, path: LakePath) -> F | None:
    """The facts in the content of the file `path`.

    There is one policy for damage: damaged evidence is an error; any other record can be made again, so a damaged one
    is as good as none. A record of an unknown version counts as damaged.

    Raises:
        StorageError: evidence is damaged; names the file and the field.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        if not issubclass(model, Evidence):
            return None
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise StorageError(model.damaged.format(path=path, field=f"{where}: {first['msg']}")) from None


def read_record(model: type[F], path: LakePath) -> F | None:
    """The facts in a file; None when there is none. Damage as in `parse_record`.

    Raises:
        StorageError: evidence is damaged, or the storage failed.
        ConfigurationError: the file may not be read.
    """
    with storage_errors(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            # A link that leads nowhere is an error.
            if path.is_there():
                raise
            return None
    return parse_record(model, content, path)


def write_record(path: LakePath, record: Facts, superseded: LakePath | None = None) -> None:
    """Write a record, whole or not at all; the one that it replaces is kept in the directory `superseded`."""
    with storage_errors(path):
        if superseded is not None and path.is_there():
            keep_record(path.read_bytes(), superseded)
        path.write_whole(record_bytes(record))


def keep_record(content: bytes, superseded: LakePath) -> None:
    """Keep a record that is replaced, named by its SHA-256: later records name it."""
    (superseded / f"{hashlib.sha256(content).hexdigest()}.json").write_whole(content)


def record_bytes(record: Facts) -> bytes:
    """The content of a record's file."""
    content = record.model_dump_json(indent=1).encode() + b"\n"
    return state_sha256(content) if isinstance(record, Record) else content


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
