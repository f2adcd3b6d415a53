"""Reads the registry's bodies: repositories, tags with their layers, and manifests. The two versions differ in names.

Pure functions of a parsed body. Requesting them belongs to `cloud.registry`.
"""

import datetime as dt
import re
from typing import Any, NamedTuple

from pipelines.bodies.json_text import NotJSONError, parse
from pipelines.bodies.list_page import text_at, value_at
from pipelines.snapshot.sources.resources import as_time

MANIFEST_LIST = 1

_DIGEST = re.compile(r"[a-z0-9+._-]+:[0-9a-f]{32,}")
_LARGEST = 2**60
_LONGEST_NAME = 1024
# The registry address in an image's body, without parsing all of it: host, namespace, repository, tag or digest.
# The parts of a pattern exclude each other, so that no body takes longer than its length.
_ADDRESS = re.compile(rb'"swr_path"\s*:\s*"(?:[^"/\\.:]*[.:][^"/\\]*/)?([^"/:@\\]+)/([^":@\\]+)[":@]')
_PRESET = re.compile(rb'"type"\s*:\s*"BUILD_IN"', re.IGNORECASE)


class Repository(NamedTuple):
    """A repository as its list shows it; `downloads` is None if the list does not say."""

    namespace: str
    name: str
    downloads: int | None


class Layers(NamedTuple):
    """What a manifest says: its configuration, its layers (digest, bytes), and the manifests that it lists.

    `layers` are None if the manifest does not say all of them: it cannot be read, or it is a list.
    """

    config_digest: str | None
    layers: tuple[tuple[str, int], ...] | None
    manifests: tuple[str, ...]


class Tag(NamedTuple):
    """A tag of a repository. A manifest without a tag has its digest as tag, after an @."""

    tag: str
    digest: str | None
    size_bytes: int | None
    tag_type: int | None
    created: dt.datetime | None
    updated: dt.datetime | None
    content: Layers


def repository_of(item: dict[str, Any]) -> Repository | None:
    """The repository of a list's item; None if it has no name."""
    namespace, name = text_at(item, "namespace") or text_at(item, "namespace_name"), text_at(item, "name")
    if not namespace or not name:
        return None
    # Some lists show the namespace in the name, too.
    return Repository(namespace, name.removeprefix(f"{namespace}/"), _count(item.get("num_download")))


def tag_of(item: dict[str, Any]) -> Tag | None:
    """The tag of a list's item; None if it has neither name nor digest, or a name that cannot be stored."""
    digest = _digest(item.get("digest"))
    name = text_at(item, "Tag") or text_at(item, "tag") or (f"@{digest}" if digest else None)
    if name is None or len(name) > _LONGEST_NAME:
        return None
    tag_type = item.get("tag_type")
    return Tag(
        tag=name,
        digest=digest,
        size_bytes=_count(item.get("size")),
        tag_type=tag_type if isinstance(tag_type, int) and not isinstance(tag_type, bool) else None,
        created=as_time(item.get("created")),
        updated=as_time(item.get("updated")),
        content=layers_of(item.get("manifest"), is_list=tag_type == MANIFEST_LIST),
    )


def layers_of(manifest: Any, *, is_list: bool = False) -> Layers:
    """What a manifest says, given as JSON text or as an object. A manifest that `is_list` has no layers of its own."""
    unknown = Layers(None, None, ())
    if isinstance(manifest, str):
        try:
            manifest = parse(manifest.encode("utf-8", "surrogatepass"))
        except NotJSONError:
            return unknown
    if not isinstance(manifest, dict):
        return unknown
    listed = manifest.get("manifests")
    if isinstance(listed, list):
        digests = [_digest(value_at(one, "digest")) for one in listed]
        known = tuple(dict.fromkeys(digest for digest in digests if digest is not None))
        return Layers(None, None, known) if listed and None not in digests else unknown
    layers = manifest.get("layers")
    if is_list or not isinstance(layers, list):
        return unknown
    found: dict[str, int] = {}
    for layer in layers:
        digest, size = _digest(value_at(layer, "digest")), _count(value_at(layer, "size"))
        if digest is None or size is None:
            return unknown
        found[digest] = size
    return Layers(_digest(value_at(manifest, "config", "digest")), tuple(sorted(found.items())), ())


def repository_named(body: bytes) -> tuple[str, str] | None:
    """Namespace and repository that an image's response names; None for a preset image, which is the vendor's.

    A body that is written in another way than usual names none, so that its repository may stay unread.
    """
    found = _ADDRESS.search(body)
    if found is None or _PRESET.search(body):
        return None
    namespace, repository = (part.decode("utf-8", "replace") for part in found.groups())
    return namespace, repository


def _digest(value: Any) -> str | None:
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST_NAME and _DIGEST.fullmatch(text) else None


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST else None
