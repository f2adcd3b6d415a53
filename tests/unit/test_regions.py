"""Endpoints from regions, from the catalogue of a token, and from one another."""

import pytest

from pipelines.cloud.regions import (
    PARTITIONS,
    catalogue_endpoints,
    partition_of,
    region_of_project,
    regional_endpoint,
    sibling_endpoint,
)
from pipelines.errors import ConfigurationError


@pytest.mark.parametrize(
    ("service", "region", "endpoint"),
    [
        ("modelarts", "cn-north-4", "https://modelarts.cn-north-4.myhuaweicloud.com"),
        ("iam", "cn-north-4", "https://iam.cn-north-4.myhuaweicloud.com"),
        ("swr", "ap-southeast-3", "https://swr-api.ap-southeast-3.myhuaweicloud.com"),
        ("cts", "eu-west-101", "https://cts.eu-west-101.myhuaweicloud.eu"),
        ("modelarts", "eu-de", "https://modelarts.eu-de.otc.t-systems.com"),
        ("iam", "eu-nl", "https://iam.eu-nl.otc.t-systems.com"),
        ("iam", "eu-ch2", "https://iam-pub.eu-ch2.sc.otc.t-systems.com"),
        ("swr", "eu-ch2", "https://swr-api.eu-ch2.sc.otc.t-systems.com"),
    ],
)
def test_endpoint_follows_from_service_and_region(service, region, endpoint):
    assert regional_endpoint(service, region, "OS_REGION_NAME") == endpoint


def test_no_region_belongs_to_two_partitions():
    regions = [region for partition in PARTITIONS for region in partition.regions]
    assert len(regions) == len(set(regions))
    assert [partition_of(name) and partition_of(name).name for name in ("cn-east-3", "tr-west-1", "eu-de", "eu")] == [
        "Huawei Cloud, China",
        "Huawei Cloud, international",
        "Open Telekom Cloud",
        None,
    ]


def test_unknown_region_is_one_sentence_that_lists_the_known_ones():
    with pytest.raises(ConfigurationError) as caught:
        regional_endpoint("modelarts", "eu-dee", "OS_REGION_NAME")
    message = str(caught.value)
    assert message.startswith("OS_REGION_NAME names the region 'eu-dee', which is not one of ")
    assert all(region in message for partition in PARTITIONS for region in partition.regions)
    assert message.endswith(
        ": correct it, or set IMAGE_SNAPSHOTS_ENDPOINT (`endpoint` in the projects file) to the region's ModelArts "
        "endpoint."
    )
    with pytest.raises(ConfigurationError, match=r"or set OS_AUTH_URL \(auth_url in clouds\.yaml\) to the region's id"):
        regional_endpoint("iam", "eu-dee", "OS_REGION_NAME")


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("eu-de", "eu-de"),
        ("eu-de_team_a", "eu-de"),
        ("cn-north-4_ml", "cn-north-4"),
        ("eu-dev", None),
        ("team_eu-de", None),
        ("", None),
        (None, None),
    ],
)
def test_region_is_read_from_a_project_name(name, region):
    assert region_of_project(name) == region


@pytest.mark.parametrize(
    ("service", "modelarts", "endpoint"),
    [
        ("cts", "https://modelarts.eu-de.otc.t-systems.com", "https://cts.eu-de.otc.t-systems.com"),
        ("swr", "https://modelarts.eu-de.otc.t-systems.com", "https://swr-api.eu-de.otc.t-systems.com"),
        ("iam", "https://modelarts.eu-ch2.sc.otc.t-systems.com", "https://iam-pub.eu-ch2.sc.otc.t-systems.com"),
        ("cts", "https://modelarts.private.example:8443", "https://cts.private.example:8443"),
        ("cts", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("cts", "https://gateway.example", None),
    ],
)
def test_endpoint_of_one_service_follows_from_that_of_modelarts(service, modelarts, endpoint):
    assert sibling_endpoint(service, modelarts) == endpoint


def entry(type_, region, url, **other):
    return {"type": type_, "name": type_, "endpoints": [{"region": region, "url": url, **other}]}


def test_catalogue_states_endpoints_with_version_and_project():
    catalogue = [
        entry("modelarts", "eu-de", "https://modelarts.eu-de.example/v1/0123", interface="public"),
        entry("modelartsv2", "eu-de", "https://modelarts.eu-de.example/v2/0123", interface="public"),
        entry("modelarts", "eu-nl", "https://gateway.example/modelarts/v1.0", region_id="eu-nl"),
        entry("swr-v2", "eu-de", "https://swr-api.eu-de.example/v2"),
        entry("infer-modelarts", "eu-de", "https://elsewhere.example/v1"),
    ]
    assert catalogue_endpoints(catalogue, "modelarts") == {
        "eu-de": "https://modelarts.eu-de.example",
        "eu-nl": "https://gateway.example/modelarts",
    }
    assert catalogue_endpoints(catalogue, "swr") == {"eu-de": "https://swr-api.eu-de.example"}
    assert catalogue_endpoints(catalogue, "cts") == {}


@pytest.mark.parametrize(
    "catalogue",
    [
        None,
        {},
        "modelarts",
        [None, 7, "modelarts"],
        [{"type": "modelarts"}],
        [{"type": "modelarts", "endpoints": {"region": "eu-de"}}],
        [entry("modelarts", None, "https://modelarts.eu-de.example")],
        [entry("modelarts", "eu-de", None)],
        [entry("modelarts", "eu-de", "http://modelarts.eu-de.example/v1")],
        [entry("modelarts", "eu-de", "https://user:password@modelarts.eu-de.example/v1")],
        [entry("modelarts", "eu-de", "https://modelarts.eu-de.example/v1", interface="internal")],
    ],
)
def test_catalogue_without_a_usable_endpoint_states_none(catalogue):
    assert catalogue_endpoints(catalogue, "modelarts") == {}
