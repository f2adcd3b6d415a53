"""What the registry and each of its tags must hold on sandbox days, computed from the sandbox's own record of tags.

Plain Python with fractions and sets over `sandbox.registry`: it shares neither SQL nor reading with the product. What
is known of the images themselves is the `golden_oracle`'s.
"""

import datetime as dt
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from golden_oracle import Oracle, size_bytes

from pipelines.sandbox.registry import FORBIDDEN, Registry, StoredTag, address_of

Row = dict[str, Any]
Address = tuple[str, str, str]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class StorageOracle:
    """The storage of an oracle's days. The registry was read on all of them but those where "registry" is unread."""

    oracle: Oracle
    unused_after: int

    @cached_property
    def _registry(self) -> Registry:
        return Registry(self.oracle.catalogue)

    def was_read(self, date: dt.date) -> bool:
        return "registry" not in self.oracle.knowledge[date].day.unread

    def namespaces(self, date: dt.date) -> set[str]:
        """The namespaces that the images described on a day name; presets are the vendor's."""
        day = self.oracle.knowledge[date].day
        if not self.was_read(date):
            return set()
        described = [
            self.oracle.catalogue.image(id_, date)
            for id_ in day.register
            if self.oracle.outcome(day, id_) in ("ok", "deleted")
        ]
        return {address_of(body["swr_path"])[0] for body in described if body["type"] != "BUILD_IN"}

    def tags(self, date: dt.date) -> dict[Address, StoredTag]:
        """The tags that a run can read."""
        namespaces = self.namespaces(date)
        return {
            (tag.namespace, tag.repository, tag.tag or f"@{tag.manifest.digest}"): tag
            for tag in self._registry.all_tags(date)
            if tag.namespace in namespaces and (tag.namespace, tag.repository) != FORBIDDEN
        }

    # -- evidence

    def registry_tags(self, date: dt.date) -> list[Row]:
        """The rows of a day, in order, without when they were read."""
        return [
            {
                **_address_row(key),
                "digest": tag.manifest.digest,
                "config_digest": _config_digest(tag),
                "size_bytes": tag.size,
                "layers": len(tag.manifest.layers),
                "tag_type": 1 if tag.manifest.manifests else 0,
                "downloads": self._registry.downloads(date, *key[:2]),
                "created": _time(tag.created),
                "updated": _time(tag.updated),
            }
            for key, tag in sorted(self.tags(date).items())
        ]

    def registry_layers(self, date: dt.date) -> list[Row]:
        manifests = {tag.manifest.digest: tag.manifest for tag in self.tags(date).values()}
        return [
            {"digest": digest, "layer_digest": layer, "size_bytes": size}
            for digest, manifest in sorted(manifests.items())
            for layer, size in sorted(manifest.layers)
        ]

    # -- image_storage and registry_only

    def stored(self, date: dt.date) -> dict[Address, Row]:
        """The bytes of each tag; null where a tag that may not be read could share them."""
        tags = self.tags(date)
        owners = Counter(layer for tag in tags.values() for layer, _ in tag.manifest.layers)
        found = {}
        for key, tag in tags.items():
            layers = dict(tag.manifest.layers)
            unique = sum(size for layer, size in layers.items() if owners[layer] == 1)
            is_known = key[0] != FORBIDDEN[0]
            shares = [Fraction(size, owners[layer]) for layer, size in layers.items() if owners[layer] > 1]
            found[key] = {
                "digest": tag.manifest.digest,
                "layers": len(layers),
                "size_bytes": sum(layers.values()),
                "unique_bytes": unique if is_known or not unique else None,
                "shared_bytes": sum(layers.values()) - unique if is_known or not unique else None,
                "shared_bytes_share": sum(shares, Fraction(0)) if is_known else None,
            }
        return found

    def image_storage(self, date: dt.date) -> dict[str, Row]:
        """What is stored for each living image, by id."""
        return self._by_date[date]

    @cached_property
    def _by_date(self) -> dict[dt.date, dict[str, Row]]:
        return dict(self._days())

    def _days(self) -> Iterable[tuple[dt.date, dict[str, Row]]]:
        found: dict[dt.date, dict[str, Row]] = {}
        for date, knowledge in self.oracle.knowledge.items():
            before = found[knowledge.previous.day.date] if knowledge.previous else {}
            before_date = knowledge.previous.day.date if knowledge.previous else None
            stored, namespaces = self.stored(date), self.namespaces(date)
            addresses = {id_: _address(content) for id_, (content, _) in knowledge.current.items()}
            images = Counter(addresses.values())
            found[date] = {
                id_: self._image(date, address, stored, namespaces, images)
                | _since(self._digest_and_downloads(date, address, stored), address, before.get(id_), before_date)
                for id_, address in addresses.items()
            }
            yield date, found[date]

    def _image(
        self,
        date: dt.date,
        address: Address | None,
        stored: Mapping[Address, Row],
        namespaces: Collection[str],
        images: Mapping[Address | None, int],
    ) -> Row:
        names = ("digest", "layers", "size_bytes", "unique_bytes", "shared_bytes", "shared_bytes_share")
        row: Row = {**_address_row(address or (None, None, None)), **dict.fromkeys(names)}
        row |= {"state": "elsewhere", "images_of_tag": None, "downloads": None}
        if address is None:
            return row
        row["images_of_tag"] = images[address]
        if address in stored:
            state = "partial" if address[0] == FORBIDDEN[0] else "known"
            return row | stored[address] | {"state": state, "downloads": self._registry.downloads(date, *address[:2])}
        is_read = address[0] in namespaces and address[:2] != FORBIDDEN
        return row | {"state": "tag_gone" if is_read else "unread"}

    def _digest_and_downloads(
        self, date: dt.date, address: Address | None, stored: Mapping[Address, Row]
    ) -> tuple[str | None, int | None]:
        if address is None or address not in stored:
            return None, None
        return stored[address]["digest"], self._registry.downloads(date, *address[:2])

    def registry_only(self, date: dt.date) -> list[Row]:
        """The tags that no living image registers, nor one that the list shows, in order."""
        known = {_address(content) for content, _ in self.oracle.knowledge[date].current.values()}
        catalogue = self.oracle.catalogue
        known |= {address_of(body["swr_path"]) for body in catalogue.page(date, 0, catalogue.size)}
        stored = self.stored(date)
        names = ("tag_type", "downloads", "created", "updated")
        return [
            {name: row[name] for name in ("namespace", "repository", "tag")}
            | stored[row["namespace"], row["repository"], row["tag"]]
            | {name: row[name] for name in names}
            for row in self.registry_tags(date)
            if (row["namespace"], row["repository"], row["tag"]) not in known
        ]

    def digest_changes(self, date: dt.date) -> list[tuple[str, str, str]]:
        """Id, digest when it was last read, and digest now, of the images whose digest is another one."""
        if not self.oracle.knowledge[date].day.is_complete:
            return []
        return [
            (id_, row["digest_before"], row["digest"])
            for id_, row in self.image_storage(date).items()
            if None not in (row["digest_before"], row["digest"]) and row["digest"] != row["digest_before"]
        ]

    # -- what deleting unused images frees

    def _deletable(self, date: dt.date) -> dict[str, Row]:
        """The usage of the images that nothing needs and that are not preset."""
        if not self.oracle.knowledge[date].day.all_was_read:
            return {}
        current = self.oracle.knowledge[date].current
        return {
            row["id"]: row
            for row in self.oracle.usage(date)
            if row["running"] == row["required"] == 0 and current[row["id"]][0]["type"] != "BUILD_IN"
        }

    def reclaimable_of_image(self, date: dt.date, id_: str) -> int | None:
        """What deleting one image frees: nothing of one that is used, or whose tag another image needs."""
        if not self.oracle.knowledge[date].day.all_was_read:
            return None
        usage = self._deletable(date).get(id_)
        stored = self.image_storage(date)[id_]
        if usage is None or usage["unused_days"] < self.unused_after:
            return 0
        return 0 if stored["state"] == "tag_gone" or (stored["images_of_tag"] or 0) > 1 else stored["unique_bytes"]

    def reclaimable(self, date: dt.date, findings: Iterable[Row]) -> list[Row]:
        """What deleting each set of images frees together; `findings` are the day's, of all rules."""
        knowledge = self.oracle.knowledge[date]
        deletable = self._deletable(date)
        sets: dict[tuple[str, str], set[str]] = {}
        for id_, usage in deletable.items():
            if usage["unused_days"] >= self.unused_after:
                owner = self.oracle.owners(knowledge, id_)["owner"] or ""
                namespace = knowledge.current[id_][0]["namespace"] or ""
                for key in (("all", ""), ("owner", owner), ("namespace", namespace)):
                    sets.setdefault(key, set()).add(id_)
        for row in findings:
            if row["state"] in ("new", "open") and row["id"] in deletable:
                sets.setdefault(("rule", row["rule"]), set()).add(row["id"])
        return [self._freed(date, *key, ids) for key, ids in sorted(sets.items())]

    def _freed(self, date: dt.date, dimension: str, name: str, ids: set[str]) -> Row:
        storage, current = self.image_storage(date), self.oracle.knowledge[date].current
        tags = self.tags(date)
        registered: dict[Address, set[str]] = {}
        for id_, row in storage.items():
            if row["state"] == "known":
                registered.setdefault((row["namespace"], row["repository"], row["tag"]), set()).add(id_)
        gone = {address for address, images in registered.items() if images <= ids}
        left = {layer for key, tag in tags.items() if key not in gone for layer, _ in tag.manifest.layers}
        freed = {layer: size for key in gone for layer, size in tags[key].manifest.layers if layer not in left}
        unknown = sum(storage[id_]["state"] not in ("known", "tag_gone") for id_ in ids)
        sizes = [size for id_ in ids if (size := size_bytes(current[id_][0])) is not None]
        return {
            "dimension": dimension,
            "name": name,
            "images": len(ids),
            "unknown_images": unknown,
            "image_bytes": sum(sizes) if sizes else None,
            "known_bytes": sum(freed.values()),
            "reclaimable_bytes": None if unknown else sum(freed.values()),
        }


def _since(
    read: tuple[str | None, int | None], address: Address | None, before: Row | None, before_date: dt.date | None
) -> Row:
    """What changed since the image's tag was last read, on a complete day; nothing is known of a new image."""
    digest, downloads = read
    row: Row = dict.fromkeys(("digest_before", "digest_before_date", "downloads_before", "downloads_before_date"))
    row |= {"digest_changes": 0, "pulls_since": None}
    if before is None:
        return row
    row["digest_changes"] = before["digest_changes"]
    was_at = (before["namespace"], before["repository"], before["tag"])
    last = (before["digest"], before_date)
    if before["digest"] is None:
        last = (before["digest_before"], before["digest_before_date"])
    if last[0] and (digest or was_at == address):
        row["digest_before"], row["digest_before_date"] = last
    if digest and last[0] and was_at == address and digest != last[0]:
        row["digest_changes"] += 1
    if address and was_at[:2] == address[:2]:
        pulled = (before["downloads"], before_date)
        if before["downloads"] is None:
            pulled = (before["downloads_before"], before["downloads_before_date"])
        row["downloads_before"], row["downloads_before_date"] = pulled
        if None not in (downloads, pulled[0]) and downloads >= pulled[0]:
            row["pulls_since"] = downloads - pulled[0]
    return row


def _address(content: Row) -> Address | None:
    """Where an image lies in the registry; None if it has no address, or lies in an instance of its own."""
    if not content["swr_path"] or content["swr_instance_id"]:
        return None
    return address_of(content["swr_path"])


def _address_row(address: tuple[str | None, str | None, str | None]) -> Row:
    return dict(zip(("namespace", "repository", "tag"), address, strict=True))


def _config_digest(tag: StoredTag) -> str | None:
    return None if tag.manifest.manifests else json.loads(tag.manifest.text)["config"]["digest"]


def _time(milliseconds: int) -> dt.datetime:
    """The registry writes no time before 1970, and none after 2096."""
    return _EPOCH + dt.timedelta(milliseconds=min(max(milliseconds, 0), 4_000_000_000_000))
