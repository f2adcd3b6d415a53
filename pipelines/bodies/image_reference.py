"""Reads how cloud resources name an image: by its id, or by an address in the registry.

An address has the form `host/namespace/repository:tag` or `namespace/repository:tag`, or either with `@sha256:…`. The
host differs inside and outside of the cloud's network, so it does not identify an image.
"""

import re
from typing import NamedTuple

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$", re.IGNORECASE)
# An address within a longer text: an optional host, at least one directory, and a tag or a digest.
_ADDRESS = re.compile(
    r"(?<![\w./:@-])(?:[\w.-]+(?::\d+)?/)?[a-z0-9][\w.-]*(?:/[\w.-]+)+(?::[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})",
    re.IGNORECASE,
)


class ImageReference(NamedTuple):
    """An image as a resource names it: by `image_id`, or by an address `text`, with the address's parts in lower case.

    `path` is `namespace/repository` without the host. `tag` is `latest` if the address has neither tag nor digest, and
    None if it has only a digest.
    """

    image_id: str | None = None
    text: str | None = None
    path: str | None = None
    tag: str | None = None
    digest: str | None = None


def parse_reference(value: object) -> ImageReference | None:
    """The image that a field's value names; None if it names none.

    Parts that could hold a secret are dropped: the user and password before the host, and the query.
    """
    # Half a character, which cannot be stored, becomes its escape: the reference means no image, and is not lost.
    text = value.strip().encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else ""
    if not text:
        return None
    if _UUID.fullmatch(text.lower()):
        return ImageReference(image_id=text.lower())
    text = re.split(r"[?#\s]", _SCHEME.sub("", text), maxsplit=1)[0]
    digest = _DIGEST.search(text)
    address = text[: digest.start()] if digest else text
    # Everything before the last @ is a login.
    address = address.rpartition("@")[2]
    if not address.strip("/"):
        return None
    path = address.lower().strip("/")
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest
    path, _, tag = path.partition(":")
    return ImageReference(
        text=address + (digest[0] if digest else ""),
        path=path,
        tag=tag or (None if digest else "latest"),
        digest=digest[1].lower() if digest else None,
    )


def find_addresses(value: object) -> list[str]:
    """The registry addresses in a JSON value of any shape, in order.

    All texts are searched, because the API does not document where the addresses are.
    """
    if isinstance(value, str):
        return [match[0] for match in _ADDRESS.finditer(value)]
    if isinstance(value, dict):
        return [found for item in value.values() for found in find_addresses(item)]
    if isinstance(value, list):
        return [found for item in value for found in find_addresses(item)]
    return []
