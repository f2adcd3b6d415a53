"""The vendor's own SDKs read the sandbox's registry and its bill lines: the same rows as a run publishes."""

import datetime as dt
import json
import os
from decimal import Decimal

import httpx
import pyarrow.parquet as pq
import pytest
from huaweicloudsdkbss.v2 import (
    BssClient,
    ListCustomerselfResourceRecordDetailsRequest,
    QueryResRecordsDetailReq,
)
from huaweicloudsdkcore.auth.credentials import GlobalCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkswr.v2 import (
    CreateSecretRequest,
    ListRepoDetailsRequest,
    ListReposDetailsRequest,
    ListRepositoryTagRequest,
    ListRepositoryTagsRequest,
    SwrClient,
)
from vendor_sdk import (
    account_client,
    key_credentials,
    loopback_only,  # noqa: F401  (a fixture)
    sdk_client,
    token_credentials,
)

from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import read_manifest
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.sandbox.registry import FORBIDDEN
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.sources.bill_lines import kind_of
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import BILLED_COSTS, BILLED_DAYS, REGISTRY_LAYERS, REGISTRY_TAGS

# The SDK's signer reads the clock with datetime.utcnow(), which Python 3.12 and later warn of.
pytestmark = [
    pytest.mark.usefixtures("loopback_only"),
    pytest.mark.filterwarnings(r"ignore:datetime\.datetime\.utcnow\(\) is deprecated:DeprecationWarning"),
]

DAY = dt.date(2026, 11, 23)
PARTITION = Partition(DAY, "default")


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(SandboxOptions(seed="vendor", size=80, day=DAY)) as connection:
        yield connection


@pytest.fixture(scope="module")
def lake(sandbox, tmp_path_factory):
    """A day that our own client read."""
    root = tmp_path_factory.mktemp("read") / "lake"
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("IMAGE_SNAPSHOTS_", "OS_")):
                monkeypatch.delenv(name)
        for name, value in sandbox.env.items():
            monkeypatch.setenv(name, value)
        settings = Settings(
            lake=str(root), inventory="modelarts:", usage="none", traces="false", registry="true", bills="huawei:"
        )
        noon = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
        run = SnapshotRun(PARTITION, "run-1", settings, lambda: noon)
        take_inventory(run)
        fetch_responses(run, lambda _: None)
        publish_snapshot(run)
    return Lake(str(root))


def rows(lake, table):
    with lake.table(table.name, PARTITION).open("rb") as file:
        return pq.read_table(file).to_pylist()


@pytest.fixture(scope="module", params=[token_credentials, key_credentials], ids=["token", "keys"])
def registry(request, sandbox):
    return sdk_client(SwrClient, sandbox, request.param(sandbox))


def of_version_2(client, namespace):
    """The repositories of a namespace, by records."""
    found, total = [], 1
    while len(found) < total:
        answer = client.list_repos_details(ListReposDetailsRequest(namespace, limit="4", offset=str(len(found))))
        found += answer.body
        total = int(answer.content_range.rpartition("/")[2])
    return found


def tags_of_version_2(client, namespace, name):
    found, total = [], 1
    while len(found) < total:
        asked = ListRepositoryTagsRequest(namespace, name.replace("/", "$"), limit="2", offset=str(len(found)))
        answer = client.list_repository_tags(asked)
        found += answer.body
        total = int(answer.content_range.rpartition("/")[2])
    return found


def of_version_3(client, namespace):
    """The repositories of a namespace, by markers."""
    found, marker = [], None
    while marker is not None or not found:
        answer = client.list_repo_details(ListRepoDetailsRequest(namespace, limit=4, marker=marker))
        found += answer.repos
        marker = answer.next_marker
    return found


def tags_of_version_3(client, namespace, name):
    found, answer = [], None
    while answer is None or answer.has_more:
        marker = answer.next_marker if answer else None
        asked = ListRepositoryTagRequest(namespace, name.replace("/", "$"), limit=2, marker=marker, with_manifest=True)
        answer = client.list_repository_tag(asked)
        found += answer.tags
    return found


VERSIONS = pytest.mark.parametrize(
    ("repositories_of", "tags_of"),
    [
        pytest.param(of_version_2, tags_of_version_2, id="version 2"),
        pytest.param(of_version_3, tags_of_version_3, id="version 3"),
    ],
)


@VERSIONS
def test_sdk_reads_the_tags_and_layers_that_a_run_reads(registry, lake, repositories_of, tags_of):
    tags, layers = {}, {}
    for namespace in read_manifest(lake.manifest(PARTITION)).fetch.registry.namespaces:
        for repository in repositories_of(registry, namespace):
            if (namespace, repository.name) == FORBIDDEN:
                continue
            for tag in tags_of(registry, namespace, repository.name):
                tags[namespace, repository.name, tag.tag or f"@{tag.digest}"] = {
                    "digest": tag.digest,
                    "size_bytes": tag.size,
                    "tag_type": tag.tag_type,
                    "downloads": repository.num_download,
                    "created": dt.datetime.fromisoformat(tag.created),
                    "updated": dt.datetime.fromisoformat(tag.updated),
                }
                if tag.tag_type == 0:
                    layers[tag.digest] = {one["digest"]: one["size"] for one in json.loads(tag.manifest)["layers"]}
    ours = {(row["namespace"], row["repository"], row["tag"]): row for row in rows(lake, REGISTRY_TAGS)}
    assert {key: {name: row[name] for name in tags[key]} for key, row in ours.items()} == tags != {}
    our_layers = {}
    for row in rows(lake, REGISTRY_LAYERS):
        our_layers.setdefault(row["digest"], {})[row["layer_digest"]] = row["size_bytes"]
    lists = {row["digest"] for row in ours.values() if row["tag_type"] == 1}
    assert {digest: found for digest, found in our_layers.items() if digest not in lists} == layers
    assert lists


@VERSIONS
def test_sdk_understands_errors_of_the_registry(registry, repositories_of, tags_of):
    namespace, name = FORBIDDEN
    assert name in {one.name for one in repositories_of(registry, namespace)}
    for wanted, status, code in ((name, 403, "SVCSTG.SWR.4030001"), ("nowhere", 404, "SVCSTG.SWR.4040002")):
        with pytest.raises(ClientRequestException) as caught:
            tags_of(registry, namespace, wanted)
        assert caught.value.status_code == status
        assert code in str(caught.value)


def test_sdk_is_issued_a_login(registry, sandbox):
    issued = registry.create_secret(CreateSecretRequest())
    host = sandbox.endpoint.removeprefix("http://")
    assert issued.auths.keys() == {host}
    assert issued.auths[host].auth in issued.x_swr_dockerlogin


def bill_client(sandbox, credentials):
    return sdk_client(BssClient, sandbox, credentials, GlobalCredentials("AK", "SK", "domain"))


def test_sdk_looks_up_the_account_of_bill_lines(sandbox):
    def lookups():
        return httpx.get(f"{sandbox.endpoint}/sandbox/stats").json()["requests"].get("domains", 0)

    before = lookups()
    client = account_client(BssClient, sandbox)
    assert client._credentials.domain_id == "sandbox-domain"
    assert lookups() == before + 1


@pytest.mark.parametrize("domain", [None, "another"])
def test_sdk_is_refused_bill_lines_without_its_account(sandbox, domain):
    credentials = key_credentials(sandbox)
    if domain is not None:
        credentials = GlobalCredentials(credentials.ak, credentials.sk, domain)
    asked = QueryResRecordsDetailReq(cycle=f"{DAY:%Y-%m}")
    with pytest.raises(ClientRequestException) as caught:
        bill_client(sandbox, credentials).list_customerself_resource_record_details(
            ListCustomerselfResourceRecordDetailsRequest(body=asked)
        )
    assert (caught.value.status_code, caught.value.error_code) == (401, "APIG.0301")


@pytest.mark.parametrize("kind", ["account", "token"])
def test_sdk_reads_the_bill_lines_that_a_run_reads(sandbox, lake, kind):
    by_account = kind == "account"
    client = account_client(BssClient, sandbox) if by_account else bill_client(sandbox, token_credentials(sandbox))
    lines = []
    first, last = DAY - dt.timedelta(days=BILLED_DAYS), DAY - dt.timedelta(days=1)
    for begin, end in ((first, dt.date(2026, 10, 31)), (dt.date(2026, 11, 1), last)):
        found, total = [], 1
        while len(found) < total:
            asked = QueryResRecordsDetailReq(
                cycle=f"{begin:%Y-%m}",
                statistic_type=2,
                query_type="DAILY",
                bill_cycle_begin=str(begin),
                bill_cycle_end=str(end),
                offset=len(found),
                limit=30,
            )
            answer = client.list_customerself_resource_record_details(
                ListCustomerselfResourceRecordDetailsRequest(body=asked)
            )
            assert (answer.currency, len(answer.monthly_records) <= 30) == ("EUR", True)
            found, total = found + answer.monthly_records, answer.total_count
        lines += found
    kept = [line for line in lines if kind_of(line.cloud_service_type)]
    assert 0 < len(kept) < len(lines)
    theirs = sorted(
        (
            line.bill_date,
            line.cloud_service_type_name,
            line.res_instance_id,
            line.resource_name,
            line.product_spec_desc,
            Decimal(str(line.official_amount)),
            Decimal(str(line.consume_amount)),
        )
        for line in kept
    )
    columns = ("service", "resource_id", "resource_name", "description", "list_cost", "billed_cost")
    assert theirs == sorted(
        (str(row["charge_date"]), *(row[name] for name in columns)) for row in rows(lake, BILLED_COSTS)
    )
    assert {line.measure_id for line in lines} == {1}
