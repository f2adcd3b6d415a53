"""The registry (SWR) of a catalogue: the tags of its images, and what else accumulates beside them.

A tag has the layers of its framework's base, those of its team, and its own, together as large as its image. Some tags
belong to no image: caches, second names of a manifest, leftovers without a tag, and tags of images that were deleted. A
few images have lost their tag, a few tags are lists of manifests, and one repository may not be read. How it is asked
for belongs to `sandbox.registry_calls`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import orjson

from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.images import TEAMS, Life, at

MANIFEST_LIST = 1
# Of a namespace that images name; anyone may see that it is there.
FORBIDDEN = (TEAMS[-1][0], "restricted")
# A name with a slash, which the API writes in another way.
CACHE = "ci/build-cache"

_MIB = 1 << 20
_GIB = 1 << 30
# System, runtime and libraries of a framework: about so large. An image has them as far as they are a small part of it.
_BASE_BYTES = (100 * _MIB, 1500 * _MIB, 3500 * _MIB)
_TEAM_BYTES = 300 * _MIB
_PLATFORMS = ("amd64", "arm64")
_SINCE = date(2024, 1, 1).toordinal()
_GONE_AFTER_DAYS = 10
_SILENT_DAYS = 9

_Layers = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest: its JSON text, and its layers (digest, bytes); of a list those of all that it lists."""

    text: str
    layers: _Layers
    manifests: tuple["Manifest", ...] = ()

    @property
    def digest(self) -> str:
        """The digest of the text."""
        return digest_of(self.text)


@dataclass(frozen=True, slots=True)
class StoredTag:
    """A tag of a repository, "" for a manifest that lost its tag. `image_id`: the image that registers it, if any.

    Times are in milliseconds since 1970.
    """

    namespace: str
    repository: str
    tag: str
    manifest: Manifest
    created: int
    updated: int
    image_id: str | None = None

    @property
    def tag_type(self) -> int:
        """1 for a list of manifests."""
        return MANIFEST_LIST if self.manifest.manifests else 0

    @property
    def size(self) -> int:
        """Bytes of the layers."""
        return sum(size for _, size in self.manifest.layers)


class Registry:
    """What a catalogue's registry holds on a day; the index of one day is kept."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._day: date | None = None
        self._index: dict[tuple[str, str], list[StoredTag]] = {}

    def repositories(self, day: date) -> list[tuple[str, str]]:
        """Namespace and name of each repository, in order."""
        return sorted(self._of(day))

    def tags(self, day: date, namespace: str, repository: str) -> list[StoredTag]:
        """The tags of a repository, in order."""
        return self._of(day).get((namespace, repository), [])

    def all_tags(self, day: date) -> Iterator[StoredTag]:
        """Every tag, those of the forbidden repository included: the record of what is stored."""
        for tags in self._of(day).values():
            yield from tags

    def manifest(self, day: date, namespace: str, repository: str, digest: str) -> Manifest | None:
        """A manifest that a tag of the repository points to or lists."""
        for tag in self.tags(day, namespace, repository):
            for manifest in (tag.manifest, *tag.manifest.manifests):
                if manifest.digest == digest:
                    return manifest
        return None

    def downloads(self, day: date, namespace: str, repository: str) -> int:
        """How often a repository was pulled from, up to a day: more each day, or never."""
        luck = self._number(f"pulls of {namespace}/{repository}")
        return luck % 900 + max(day.toordinal() - _SINCE, 0) * (luck // 1000 % 7)

    def _of(self, day: date) -> dict[tuple[str, str], list[StoredTag]]:
        if self._day != day:
            found: dict[tuple[str, str], dict[str, StoredTag]] = {}
            for tag in self._stored(day.toordinal()):
                # Two images may have one address: the first one's content counts.
                found.setdefault((tag.namespace, tag.repository), {}).setdefault(tag.tag, tag)
            self._index = {key: [tags[name] for name in sorted(tags)] for key, tags in found.items()}
            self._day = day
        return self._index

    def _stored(self, ordinal: int) -> Iterator[StoredTag]:
        for slot in range(self._catalogue.size):
            life = self._catalogue.living(slot, ordinal)
            yield from self._of_image(life, ordinal)
            before = self._catalogue.before(life)
            if self._catalogue.state_only(before, ordinal) == "deleted":
                # Who deletes an image may leave its tag.
                yield from self._of_image(before, ordinal)
        for nth, (team, _, _) in enumerate(TEAMS):
            yield from self._of_cache(team, nth)
        restricted = self._manifest(FORBIDDEN[0], "pytorch", "restricted", 0, 8 * _GIB)
        yield StoredTag(*FORBIDDEN, "v1", restricted, at(_SINCE, 0), 0)

    def _of_image(self, life: Life, ordinal: int) -> Iterator[StoredTag]:
        catalogue = self._catalogue
        state = catalogue.state_only(life, ordinal)
        if state == "absent":
            return
        body = catalogue.describe(life, ordinal)
        # Preset images are in the vendor's own registry.
        if body.get("type") == "BUILD_IN" or body.get("swr_instance_id"):
            return
        namespace, repository, tag = address_of(body["swr_path"])
        luck = catalogue.hash("registry", life.slot)
        image_id = None if state == "deleted" else catalogue.id_of(life)
        if luck[0] < 6 and ordinal - life.first >= _GONE_AFTER_DAYS:
            return
        # What is pushed again has another size; some is pushed again without one.
        silent = (ordinal - life.first) // _SILENT_DAYS if luck[1] < 32 else 0
        content = f"{life.slot}/{life.generation}/{body.get('size')}/{silent}"
        framework = repository.rpartition("-")[2]
        # The API states KiB, sometimes as text, sometimes not at all.
        size = int(body.get("size") or 4 * _MIB) * 1024
        manifest = self._manifest(namespace, framework, content, luck[2], size, is_list=luck[3] < 24)
        times = (body["create_at"], body["update_at"] + silent)
        yield StoredTag(namespace, repository, tag, manifest, *times, image_id)
        if luck[4] < 28:
            yield StoredTag(namespace, repository, f"{tag}-stable", manifest, *times)

    def _of_cache(self, team: str, nth: int) -> Iterator[StoredTag]:
        for number in range(3):
            size = 14 * _GIB if nth % 3 == 0 and number == 0 else 2 * _GIB
            manifest = self._manifest(team, "pytorch", f"cache {team} {number}", number, size)
            yield StoredTag(team, CACHE, f"cache-{number}", manifest, at(_SINCE + nth, 0), at(_SINCE + nth, 1))
        leftover = self._manifest(team, "spark", f"leftover {team}", nth, 3 * _GIB)
        yield StoredTag(team, CACHE, "", leftover, at(_SINCE, 0), at(_SINCE, 0))

    def _manifest(
        self, team: str, framework: str, content: str, luck: int, size: int, *, is_list: bool = False
    ) -> Manifest:
        """A manifest of layers of `size` bytes together; of a list, those of each platform are."""
        shared = self._shared(team, framework, 0 if is_list else luck % 3, size)
        own = size - sum(layer_size for _, layer_size in shared)
        if not is_list:
            names = [f"own {content} {number}" for number in range(1 + luck % 4)]
            return self._written([*shared, *_divided(names, own)], content)
        parts = tuple(
            self._written([*shared, (f"own {content} {platform}", own)], f"{content} {platform}")
            for platform in _PLATFORMS
        )
        listed = [
            {
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "digest": part.digest,
                "size": len(part.text),
                "platform": {"architecture": platform, "os": "linux"},
            }
            for platform, part in zip(_PLATFORMS, parts, strict=True)
        ]
        text = _json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": listed})
        return Manifest(text, tuple(sorted({layer for part in parts for layer in part.layers})), parts)

    def _shared(self, team: str, framework: str, of_team: int, size: int) -> list[tuple[str, int]]:
        """Name and bytes of the layers that an image of this size has in common with others: base first, then team."""
        layers = [(f"base {framework} {number}", most) for number, most in enumerate(_BASE_BYTES)]
        layers += [(f"team {team} {number}", _TEAM_BYTES) for number in range(of_team)]
        found: list[tuple[str, int]] = []
        left = size // 2
        for name, most in layers:
            layer_size = most * (75 + self._number(f"size of {name}") % 50) // 100
            if layer_size <= left:
                found.append((name, layer_size))
                left -= layer_size
        return found

    def _written(self, named: list[tuple[str, int]], content: str) -> Manifest:
        layers = [(self._layer(name), size) for name, size in named]
        text = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {"size": 6000 + len(content), "digest": self._layer(f"config {content}")},
                "layers": [{"size": size, "digest": digest} for digest, size in layers],
            }
        )
        return Manifest(text, tuple(sorted(layers)))

    def _layer(self, name: str) -> str:
        return digest_of(f"{self._seed}/{name}")

    def _number(self, name: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self._seed}/{name}".encode(), digest_size=6).digest())

    @cached_property
    def _seed(self) -> str:
        return self._catalogue.key.hex()


def address_of(swr_path: str) -> tuple[str, str, str]:
    """Namespace, repository and tag of an address with a host."""
    _, namespace, repository = swr_path.split("/")
    name, _, tag = repository.partition(":")
    return namespace, name, tag


def digest_of(text: str) -> str:
    """The digest of a text."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _divided(names: list[str], size: int) -> list[tuple[str, int]]:
    """Name and bytes of layers that have a size together: each but the last has half of what is left."""
    found, left = [], size
    for name in names[:-1]:
        found.append((name, left // 2))
        left -= left // 2
    return [*found, (names[-1], left)]


def time_text(milliseconds: int) -> str:
    """A time as the registry writes it; a time that is none is 0."""
    moment = min(max(milliseconds, 0), 4_000_000_000_000)
    return datetime.fromtimestamp(moment // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{moment % 1000:03}000Z"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
