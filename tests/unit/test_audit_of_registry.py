"""What the rules that read the registry find from day to day, and what they leave open while it is not read."""

import datetime as dt
import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from published_days import publish_snapshot, published_rows

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import RegistryFacts, SourceFacts, UnreadRepository
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import AUDIT_FINDINGS, IMAGE_STORAGE, REGISTRY_ONLY

GIB = 2**30
RULES = ("large_registry_only", "mutable_tag_in_use", "tag_gone", "tag_pushed_again")
# Image: its address in the registry, and who uses it: a kind of resource, and how strongly.
USERS = {
    "latest": ("service", "running"),
    "latest-for-jobs": ("training_job", "running"),
    "latest-copied": ("service", "copied"),
    "pinned": ("service", "running"),
    "pushed": ("service", "required"),
}
ADDRESSES = {
    "building": "team/building:v1",
    "copied-tag": "team/kept:v1",
    "elsewhere": "team/elsewhere:v1",
    "forbidden": "team/forbidden:v1",
    "gone": "team/gone:v1",
    "guessed": "team/guessed:v1",
    "hidden": "team/hidden:v1",
    "kept": "team/kept:v1",
    "late": "team/late:v1",
    "latest": "team/latest:latest",
    "latest-copied": "team/copied:latest",
    "latest-for-jobs": "team/jobs:LATEST",
    "moved": "team/moved:v1",
    "pinned": "team/pinned:v1",
    "preset": "atelier/preset:v1",
    "pushed": "team/pushed:v1",
    "resized": "team/resized:v1",
    "untagged": "team/untagged",
}
# Tags that no image registers, and their bytes.
ONLY = {"team/large:v1": 10 * GIB + 1, "team/large:v2": 10 * GIB, "team/forbidden:v1": 20 * GIB, "team/list:v1": None}
# A tag whose repository has another one, which an image registers.
ONLY |= {"team/kept:v0": 5}


@dataclass
class State:
    """What the cloud has on a day; each day changes it."""

    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ADDRESSES, 100))
    addresses: dict[str, str] = field(default_factory=lambda: dict(ADDRESSES))
    pushes: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=lambda: {"team/building:v1", "team/elsewhere:v1", "atelier/preset:v1"})
    only: dict[str, int | None] = field(default_factory=lambda: dict(ONLY))
    users: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(USERS))

    def tags(self):
        """Each tag of the registry: its digest and bytes."""
        named = {self.address(id_): 300 for id_ in self.addresses} | self.only
        return {
            tag: (f"sha256:{tag}-{self.pushes.get(tag, 0)}", size)
            for tag, size in sorted(named.items())
            if tag not in self.removed
        }

    def address(self, id_):
        address = self.addresses[id_]
        return address if ":" in address else f"{address}:latest"


def publish(
    date,
    state,
    *,
    registry="read",
    unread=(),
    hidden=(),
):
    """Publish and derive a day; `registry`: read, failed or off. Tags of the repositories `hidden` are not shown."""
    day = SnapshotRun(Partition(dt.date.fromisoformat(date), "default"), "run-1", Settings(lake="lake"))
    images = [
        {"id": id_, "name": id_, "size": size, "size_bytes": size, "content_hash": f"{state.addresses[id_]} {size}"}
        | {"swr_path": f"swr.example.com/{state.addresses[id_]}", "tag": state.address(id_).partition(":")[2]}
        | {"status": "CREATING" if id_ == "building" else "ACTIVE"}
        | {"swr_instance_id": "own" if id_ == "elsewhere" else None}
        | {"type": "BUILD_IN" if id_ == "preset" else "DEDICATED"}
        for id_, size in sorted(state.sizes.items())
        if id_ != "forbidden"
    ]
    outcomes = dict.fromkeys(sorted(state.sizes), "ok") | {"forbidden": "forbidden"}
    tags = [
        {"namespace": namespace, "repository": repository, "tag": tag, "digest": digest}
        | {"layers": None if size is None else 1}
        for address, (digest, size) in state.tags().items()
        for namespace, _, name in [address.partition("/")]
        for repository, _, tag in [name.partition(":")]
        if repository not in hidden and registry == "read"
    ]
    layers = [
        {"digest": digest, "layer_digest": f"{digest}-layer", "size_bytes": size}
        for _, (digest, size) in sorted(state.tags().items(), key=lambda one: one[1][0])
        if size is not None and registry == "read"
    ]
    facts = RegistryFacts(
        namespaces=["team"] if registry == "read" else [],
        origin="images",
        unread=[UnreadRepository(namespace="team", repository=name, reason="forbidden") for name in unread],
    )
    sources = {name: SourceFacts(wanted=True, was_read=True) for name in ("services", "training_jobs")}
    sources["registry"] = SourceFacts(wanted=registry != "off", was_read=registry == "read")
    publish_snapshot(
        day,
        inventory=[{"id": id_, "owner": "o", "cost_center": "c"} for id_ in outcomes],
        responses=[{"id": id_, "outcome": outcome} for id_, outcome in outcomes.items()],
        images=images,
        listed=[{"id": id_, "name": id_, "swr_path": f"swr.example.com/{ADDRESSES[id_]}"} for id_ in outcomes],
        references=[
            {"kind": kind, "resource_id": f"of-{id_}", "image_id": id_, "strength": strength}
            for id_, (kind, strength) in sorted(state.users.items(), key=lambda one: (one[1][0], one[0]))
        ],
        registry_tags=tags,
        registry_layers=layers,
        fetch_facts={"sources": sources, "registry": None if registry == "off" else facts},
    )
    derive_days(day)
    return day


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Each day of a week: its findings by rule and id, its image_storage by id, its registry_only by address."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("registry"))
        state, found = State(), {}

        def take(date, **options):
            day = publish(date, state, **options)
            rows = published_rows(day, AUDIT_FINDINGS)
            found[date] = SimpleNamespace(
                findings={rule: {row["id"]: row for row in rows if row["rule"] == rule} for rule in RULES},
                storage={row["id"]: row for row in published_rows(day, IMAGE_STORAGE)},
                only={f"{row['repository']}:{row['tag']}": row for row in published_rows(day, REGISTRY_ONLY)},
            )

        # A repository is forbidden from the first day on.
        take("2026-11-20", unread=["hidden"], hidden=["hidden"])
        state.removed |= {"team/gone:v1", "team/late:v1"}
        state.pushes |= {"team/pushed:v1": 1}
        state.sizes |= {"pushed": 101, "resized": 101}
        take("2026-11-21", unread=["hidden", "late"], hidden=["hidden", "late"])
        # The registry fails: one image is of another size, and one moves to another tag.
        state.sizes["guessed"] = 101
        state.addresses["moved"] = "team/moved:v2"
        state.removed |= {"team/pinned:v1", "team/large:v1"}
        take("2026-11-22", registry="failed")
        # The list of repositories is not read, so a repository without a tag may be one that nobody asked for.
        state.removed |= {"team/kept:v1"}
        take("2026-11-23", unread=[None, "hidden"], hidden=["hidden"])
        take("2026-11-24", registry="off")
        state.removed -= {"team/gone:v1", "team/kept:v1", "team/late:v1"}
        del state.users["pushed"]
        take("2026-11-25")
        yield found


def states(days, date, rule):
    return {id_: row["state"] for id_, row in days[f"2026-11-{date}"].findings[rule].items()}


def evidence(days, date, rule, id_):
    return json.loads(days[f"2026-11-{date}"].findings[rule][id_]["evidence"])


def test_tag_gone_finds_tags_that_the_registry_lacks(days):
    assert states(days, 20, "tag_gone") == {}
    # Not one that is being built, in a registry of its own, of a namespace or in a repository that is not read.
    assert states(days, 21, "tag_gone") == {"gone": "new"}
    assert evidence(days, 21, "tag_gone", "gone") == {
        "swr_path": "swr.example.com/team/gone:v1",
        "digest_before": "sha256:team/gone:v1-0",
        "digest_before_date": "2026-11-20",
        "running": 0,
        "required": 0,
    }
    assert {id_: row["state"] for id_, row in days["2026-11-21"].storage.items() if row["state"] != "partial"} == {
        "building": "tag_gone",
        "elsewhere": "elsewhere",
        "gone": "tag_gone",
        "hidden": "unread",
        "late": "unread",
        "preset": "unread",
    }


def test_tag_gone_is_neither_found_nor_resolved_while_the_registry_is_not_read(days):
    assert states(days, 22, "tag_gone") == {"gone": "open"}
    assert states(days, 24, "tag_gone") == dict.fromkeys(("copied-tag", "gone", "kept"), "open")
    assert states(days, 25, "tag_gone") == dict.fromkeys(("copied-tag", "gone", "kept"), "resolved") | {"pinned": "new"}


def test_tag_is_gone_without_the_list_of_repositories_only_if_its_repository_shows_others(days):
    assert days["2026-11-23"].storage["pinned"]["state"] == "unread"
    assert states(days, 23, "tag_gone") == {"copied-tag": "new", "gone": "open", "kept": "new"}


def test_large_tags_that_no_image_registers_are_found(days):
    assert states(days, 20, "large_registry_only") == {"team/large:v1": "new"}
    assert evidence(days, 20, "large_registry_only", "team/large:v1") == {
        "size_bytes": 10 * GIB + 1,
        "unique_bytes": None,
        "digest": "sha256:team/large:v1-0",
        "downloads": None,
        "updated": None,
    }
    # One of exactly 10 GiB, and one whose layers are not known, are tags that no image registers, too.
    only = days["2026-11-20"].only
    assert {name: (row["size_bytes"], row["is_certain"]) for name, row in only.items()} == {
        "large:v1": (10 * GIB + 1, True),
        "kept:v0": (5, True),
        "large:v2": (10 * GIB, True),
        "list:v1": (None, True),
    }


def test_tag_of_a_listed_image_that_may_not_be_read_is_registered(days):
    assert "forbidden:v1" not in days["2026-11-20"].only


def test_large_tag_is_resolved_by_reading_alone(days):
    # It is gone from the 22nd on; the list of repositories is read again on the 25th.
    for date in (21, 22, 23, 24):
        assert states(days, date, "large_registry_only") == {"team/large:v1": "open"}, date
    assert states(days, 25, "large_registry_only") == {"team/large:v1": "resolved"}


def test_service_that_runs_a_mutable_tag_is_found(days):
    # Not for a training job, nor for a service of a model that has a copy, nor for a tag that was pushed once.
    assert states(days, 20, "mutable_tag_in_use") == {"latest": "new"}
    assert states(days, 21, "mutable_tag_in_use") == {"latest": "open", "pushed": "new"}
    assert evidence(days, 21, "mutable_tag_in_use", "pushed") == {
        "swr_path": "swr.example.com/team/pushed:v1",
        "services": 1,
        "digest": "sha256:team/pushed:v1-1",
        "digest_changes": 1,
    }


def test_mutable_tag_stays_found_while_the_registry_is_not_read(days):
    for date in (22, 23, 24):
        assert states(days, date, "mutable_tag_in_use") == {"latest": "open", "pushed": "open"}, date
    assert states(days, 25, "mutable_tag_in_use") == {"latest": "open", "pushed": "resolved"}
    assert days["2026-11-25"].storage["pushed"]["digest_changes"] == 1


def test_tag_pushed_again_is_proved_by_the_digest(days):
    assert states(days, 20, "tag_pushed_again") == {}
    # Another size with the same digest is no push.
    assert states(days, 21, "tag_pushed_again") == {"pushed": "new"}
    found = evidence(days, 21, "tag_pushed_again", "pushed")
    assert {name: found[name] for name in ("found_by", "digest_before", "digest_now", "size_before", "size_now")} == {
        "found_by": "digest",
        "digest_before": "sha256:team/pushed:v1-0",
        "digest_now": "sha256:team/pushed:v1-1",
        "size_before": "100",
        "size_now": "101",
    }


def test_tag_pushed_again_is_guessed_while_the_registry_is_not_read(days):
    assert states(days, 22, "tag_pushed_again") == {"guessed": "new", "pushed": "resolved"}
    assert evidence(days, 22, "tag_pushed_again", "guessed")["found_by"] == "size and time"


def test_digest_at_another_address_is_no_push(days):
    # The image moved to another tag on a day without the registry: the next day shows that tag's digest for the first
    # time.
    assert days["2026-11-22"].storage["moved"]["digest_before"] is None
    assert days["2026-11-23"].storage["moved"]["digest_changes"] == 0
    assert states(days, 23, "tag_pushed_again") == {"guessed": "resolved"}
    # A day without the registry hands on what was known.
    assert days["2026-11-24"].storage["guessed"]["digest_before_date"] == dt.date(2026, 11, 23)
    assert days["2026-11-25"].storage["guessed"]["digest_changes"] == 0
