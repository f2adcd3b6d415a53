"""Registries that answer wrongly, or change while they are read: what is not known is said, and nothing is made up.

A scripted server plays the registry, the sandbox everything else.
"""

import asyncio
import base64
import datetime as dt
import json
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow.parquet as pq
import pytest
from scripted_server import QUICK, http, serving

from pipelines.cloud.service import ServiceClient
from pipelines.derive.analysis import Analysis
from pipelines.derive.reconciliation import derive_image_reconciliation
from pipelines.derive.storage import derive_image_storage
from pipelines.lake.layout import Lake, Partition
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.sources.registry_store import RegistryStore
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

DAY = dt.date(2026, 11, 16)
PARTITION = Partition(DAY, "default")
LOGIN = base64.b64encode(b"user:registry-password").decode()
NOT_FOUND = http(404, b'[{"errorCode": "SVCSTG.SWR.4040002", "errorMessage": "no such repository"}]')
WRONG_PATH = http(404, b'{"error_code": "APIG.0101", "error_msg": "The API does not exist"}')
FORBIDDEN = http(403, b'[{"errorCode": "SVCSTG.SWR.4030001", "errorMessage": "no"}]')
FAULT = http(500, b'{"errors": [{"errorCode": "SVCSTG.SWR.5000000", "errorMessage": "sorry"}]}')
THROTTLED = http(429, b"[]", Retry_After="0")
HTML = http(200, b"<html>please wait</html>")


def digest(name):
    return f"sha256:{name.encode().hex():0>64}"


def manifest(*layers):
    listed = [{"digest": digest(name), "size": 100} for name in layers]
    return json.dumps({"config": {"digest": digest("config")}, "layers": listed})


def manifest_list(*digests):
    return json.dumps({"manifests": [{"digest": one} for one in digests]})


def tag(name, content, **changed):
    is_list = int('"manifests"' in content)
    made = {"digest": digest(f"of {name}"), "size": 100, "manifest": content, "tag_type": is_list}
    return {"Tag": name, "tag": name} | made | changed


@dataclass
class Played:
    """A registry with these repositories of the namespace `team`: name -> tags.

    `before`: for a path without its query, responses that come first. `manifests`: digest -> body. `version`: 2 or 3.
    """

    repositories: dict[str, list[dict]]
    before: dict[str, list[bytes]] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    version: int = 2
    page: int = 1000
    asked: list[str] = field(default_factory=list)

    async def script(self, request, writer):
        parts = urlsplit(request.path)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query))
        self.asked.append(path)
        if self.before.get(path):
            writer.write(self.before[path].pop(0))
        elif path == "/v2/manage/utils/secret":
            writer.write(http(200, json.dumps({"auths": {request.headers["host"]: {"auth": LOGIN}}}).encode()))
        elif "/manifests/" in path:
            assert request.headers["authorization"] == f"Basic {LOGIN}"
            writer.write(http(200, self.manifests[path.rpartition("/")[2]]))
        elif not path.startswith(f"/v{self.version}/manage/"):
            writer.write(WRONG_PATH)
        elif path.endswith("/manage/repos"):
            names = ("namespace", "namespace_name")
            items = [{"name": name, "num_download": 3} | dict.fromkeys(names, "team") for name in self.repositories]
            writer.write(self.paged("repos", items, query))
        else:
            name = path.split("/")[6].replace("$", "/")
            writer.write(self.paged("tags", self.repositories[name], query) if name in self.repositories else NOT_FOUND)

    def paged(self, name, items, query):
        offset = int(query.get("offset", query.get("marker", 0)))
        shown = items[offset : offset + min(self.page, int(query["limit"]))]
        end = offset + len(shown)
        if self.version == 2:
            return http(200, json.dumps(shown).encode(), Content_Range=f"{offset}-{len(shown)}/{len(items)}")
        more = {"has_more": True, "nextMarker": str(end)} if end < len(items) else {"has_more": False}
        return http(200, json.dumps({name: shown} | more).encode())


TAGS = "/v2/manage/namespaces/team/repos/{}/tags"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    register = tmp_path_factory.mktemp("register") / "inventory.csv"
    with running_sandbox(SandboxOptions(size=12, day=DAY, inventory_file=register)) as connection:
        yield connection


@pytest.fixture
def cloud(sandbox, monkeypatch):
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(ServiceClient.__init__.__kwdefaults__, "retry_policy", QUICK)


def run_of(url, **settings):
    moment = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
    stated = {"lake": "lake", "usage": "none", "traces": "false", "reconcile": False}
    registry = {"registry": url, "registry_namespaces": "team"}
    return SnapshotRun(PARTITION, "run-1", Settings(**stated | registry | settings), lambda: moment)


def take(url):
    run = run_of(url)
    take_inventory(run)
    fetch_responses(run, lambda _: None)
    manifest = publish_snapshot(run).manifest
    with Analysis(run) as analysis:
        derive_image_reconciliation(analysis)
        derive_image_storage(analysis)
    return manifest.fetch


def rows(name):
    with Lake("lake").table(name, PARTITION).open("rb") as file:
        return pq.read_table(file).to_pylist()


async def read(played):
    """The facts of a day with this registry."""
    async with serving(played.script) as server:
        return await asyncio.to_thread(take, server.url)


def stored():
    """Tag -> bytes of its own, None where they are not known."""
    return {(row["repository"], row["tag"]): row["unique_bytes"] for row in rows("registry_only")}


async def test_passing_faults_and_refused_pages_are_asked_again(cloud):
    too_large = http(400, b'[{"errorCode": "SVCSTG.SWR.4000010", "errorMessage": "limit"}]')
    before = {
        "/v2/manage/repos": [too_large, FAULT],
        TAGS.format("a"): [THROTTLED, HTML],
        "/v2/manage/utils/secret": [FAULT],
    }
    tags = [tag("one", manifest("x", "y")), tag("two", manifest_list(digest("part")))]
    played = Played({"a": tags}, before, {digest("part"): manifest("y", "z").encode()})
    fetch = await read(played)
    assert (fetch.sources["registry"].partial, fetch.registry.unread) == (None, [])
    assert stored() == {("a", "one"): 100, ("a", "two"): 100}
    assert fetch.sources["registry"].requests == len(played.asked)


@pytest.mark.parametrize("version", [2, 3])
async def test_pages_of_either_version_are_read_to_their_end(cloud, version):
    tags = [tag(f"t{number}", manifest(f"l{number}", "base")) for number in range(5)]
    fetch = await read(Played({"a": tags, "b/c": tags[:1], "d": []}, version=version, page=2))
    assert (fetch.sources["registry"].partial, fetch.registry.unread) == (None, [])
    # The first one's layer is in two repositories.
    assert stored() == {("a", f"t{n}"): 100 if n else 0 for n in range(5)} | {("b/c", "t0"): 0}


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        ([FORBIDDEN], "HTTP 403 SVCSTG.SWR.4030001"),
        ([FAULT] * 3, "HTTP 500 SVCSTG.SWR.5000000"),
        ([THROTTLED] * 3, "HTTP 429"),
        ([HTML] * 3, "HTTP 200 client.not_a_page"),
        ([http(200, b"[{")] * 3, "HTTP 200 client.not_a_page"),
        ([http(200, b'{"tags": []}')] * 3, "HTTP 200 client.not_a_page"),
        # The repository exists, and the gateway does not know the path.
        ([WRONG_PATH], "HTTP 404 APIG.0101"),
        ([http(200, b"[]", Content_Range="0-0/4")], "4 of its tags are not shown"),
        ([http(200, b'[{"size": 3}]', Content_Range="0-1/1")], "1 of its tags are not shown"),
    ],
    ids=["forbidden", "500", "429", "html", "cut off", "another shape", "wrong path", "fewer than counted", "nameless"],
)
async def test_tags_that_cannot_be_read_make_their_namespace_unknown(cloud, responses, reason):
    tags = [tag("t", manifest("x"))]
    fetch = await read(Played({"a": tags, "b": tags}, {TAGS.format("a"): responses}))
    (unread,) = fetch.registry.unread
    assert (unread.namespace, unread.repository) == ("team", "a")
    assert reason in unread.reason
    assert "team/a" in fetch.sources["registry"].partial
    assert fetch.sources["registry"].was_read
    # What b has alone, a may have, too.
    assert stored() == {("b", "t"): None}


async def test_repository_that_is_deleted_before_its_tags_are_read_has_none(cloud):
    tags = [tag("t", manifest("x"))]
    fetch = await read(Played({"a": tags, "b": tags}, {TAGS.format("a"): [NOT_FOUND]}))
    assert fetch.registry.unread == []
    assert stored() == {("b", "t"): 100}


async def test_repository_that_is_deleted_between_two_pages_is_not_known(cloud):
    first = http(200, json.dumps([tag("t1", manifest("x"))]).encode(), Content_Range="0-1/2")
    fetch = await read(Played({"b": [tag("t", manifest("x"))], "a": []}, {TAGS.format("a"): [first, NOT_FOUND]}))
    (unread,) = fetch.registry.unread
    assert unread.repository == "a"
    assert "HTTP 404 SVCSTG.SWR.4040002" in unread.reason


async def test_list_that_shows_the_same_page_again_is_not_whole(cloud):
    first = http(200, json.dumps([tag("t1", manifest("x"))]).encode(), Content_Range="0-1/2")
    fetch = await read(Played({"a": []}, {TAGS.format("a"): [first, first]}))
    (unread,) = fetch.registry.unread
    assert unread.reason == "1 of its tags are not shown"
    assert stored() == {("a", "t1"): None}


async def test_list_that_says_there_is_more_but_not_where_is_not_whole(cloud):
    page = {"tags": [tag("t1", manifest("x"))], "has_more": True}
    path = TAGS.format("a").replace("v2", "v3")
    fetch = await read(Played({"a": []}, {path: [http(200, json.dumps(page).encode())]}, version=3))
    (unread,) = fetch.registry.unread
    assert "says that there is more, and not where" in unread.reason
    assert stored() == {("a", "t1"): None}


@pytest.mark.parametrize("version", [2, 3])
async def test_list_that_never_ends_is_not_whole(cloud, version):
    """It shows the same tag on every page, and always says that there is more."""
    path = TAGS.format("a").replace("v2", f"v{version}")
    one = tag("t1", manifest("x"))
    pages = [
        http(200, json.dumps([one]).encode(), Content_Range=f"{number}-1/{number + 100}")
        if version == 2
        else http(200, json.dumps({"tags": [one], "has_more": True, "nextMarker": f"m{number}"}).encode())
        for number in range(50)
    ]
    played = Played({"a": []}, {path: pages}, version=version)
    fetch = await read(played)
    (unread,) = fetch.registry.unread
    assert "shows nothing new, and says that there is more" in unread.reason
    assert stored() == {("a", "t1"): None}
    assert len(played.before[path]) == 48


@pytest.mark.parametrize(
    "content", ["no JSON", "", "[]", '{"layers": 1}', '{"layers": [{"digest": "sha256:no", "size": 1}]}']
)
async def test_manifest_that_does_not_say_its_layers_leaves_them_unknown(cloud, content):
    tags = [tag("odd", content), tag("good", manifest("x")), tag("same", manifest("x"), digest=digest("of good"))]
    fetch = await read(Played({"a": tags}))
    (unread,) = fetch.registry.unread
    assert (unread.repository, unread.reason) == ("a", "the layers of one tag are not known")
    # Of two tags of one manifest each has surely no layer of its own.
    assert stored() == {("a", "odd"): None, ("a", "good"): 0, ("a", "same"): 0}
    (odd,) = [row for row in rows("registry_tags") if row["tag"] == "odd"]
    assert (odd["digest"], odd["layers"]) == (digest("of odd"), None)


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        (http(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "gone"}]}'), "HTTP 404 MANIFEST_UNKNOWN"),
        (http(200, b"{}"), "the layers of one tag are not known"),
    ],
    ids=["missing", "without layers"],
)
async def test_manifest_list_with_an_unknown_platform_is_unknown_as_a_whole(cloud, child, reason):
    parts = [digest("part 1"), digest("part 2")]
    tags = [tag("multi", manifest_list(*parts)), tag("good", manifest("x"))]
    path = f"/v2/team/a/manifests/{parts[1]}"
    fetch = await read(Played({"a": tags}, {path: [child]}, {parts[0]: manifest("y").encode()}))
    assert {one.repository for one in fetch.registry.unread} == {"a"}
    assert reason in " ".join(one.reason for one in fetch.registry.unread)
    assert stored() == {("a", "multi"): None, ("a", "good"): None}
    assert [row["layer_digest"] for row in rows("registry_layers")] == [digest("x")]


@pytest.mark.parametrize(
    ("path", "response", "reason"),
    [
        ("/v2/manage/utils/secret", FORBIDDEN, "issues no login for the registry (HTTP 403 SVCSTG.SWR.4030001)"),
        ("/v2/manage/utils/secret", http(200, b'{"auths": {}}'), "issues no login for the registry that can be used"),
        (
            f"/v2/team/a/manifests/{digest('part')}",
            http(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}'),
            "HTTP 401",
        ),
    ],
    ids=["not issued", "empty", "not accepted"],
)
async def test_refused_login_costs_manifest_lists_alone(cloud, path, response, reason):
    tags = {"a": [tag("multi", manifest_list(digest("part")))], "b": [tag("t", manifest("x"))]}
    fetch = await read(Played(tags, {path: [response] * 9}))
    assert fetch.sources["registry"].was_read
    assert ("team", "a") in {(one.namespace, one.repository) for one in fetch.registry.unread}
    assert reason in " ".join(one.reason for one in fetch.registry.unread)
    assert LOGIN not in str(fetch)
    assert "registry-password" not in str(fetch)
    assert len(rows("registry_tags")) == 2


class Killed(BaseException):
    """Not caught by any error handling."""


async def test_run_that_is_killed_while_it_reads_the_registry_reads_it_anew(cloud, monkeypatch):
    tags = {name: [tag(name, manifest(name, "base"))] for name in "abc"}
    played = Played(tags)
    add, calls = RegistryStore.add, []

    def killing(self, repository, *rest):
        add(self, repository, *rest)
        calls.append(repository.name)
        if len(calls) == 2:
            raise Killed

    async with serving(played.script) as server:
        run = run_of(server.url)
        await asyncio.to_thread(take_inventory, run)
        with monkeypatch.context() as patched:
            patched.setattr(RegistryStore, "add", killing)
            with pytest.raises(Killed):
                await asyncio.to_thread(fetch_responses, run, lambda _: None)
        # Meanwhile b was deleted, and d is new.
        del tags["b"]
        tags["d"] = [tag("d", manifest("d", "base"))]
        fetch = await asyncio.to_thread(take, server.url)
    assert fetch.registry.unread == []
    assert stored() == {(name, name): 100 for name in "acd"}
    assert {row["layer_digest"] for row in rows("registry_layers")} == {digest(one) for one in ("a", "c", "d", "base")}
