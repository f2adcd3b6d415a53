"""Knows the address of each service in each region of the clouds that run ModelArts.

The only module that forms an address from a region's name, reads one from the identity service's catalogue, or finds a
service's address from another's. Which region is meant belongs to `cloud.credentials`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pipelines.errors import ConfigurationError
from pipelines.inputs.endpoints import check_endpoint, is_on_loopback

Service = Literal["modelarts", "iam", "swr", "cts"]

# How each service's host begins. The registry's API is not at the address that images are pulled from.
_HOSTS: dict[Service, str] = {"modelarts": "modelarts", "iam": "iam", "swr": "swr-api", "cts": "cts"}


@dataclass(frozen=True, slots=True)
class CloudPartition:
    """Regions that share accounts, and the domain below which their services are."""

    name: str
    domain: str
    regions: tuple[str, ...]


PARTITIONS = (
    CloudPartition(
        "Huawei Cloud, China",
        "{region}.myhuaweicloud.com",
        (
            "cn-east-2",
            "cn-east-3",
            "cn-east-4",
            "cn-east-5",
            "cn-north-1",
            "cn-north-2",
            "cn-north-4",
            "cn-north-9",
            "cn-north-11",
            "cn-north-12",
            "cn-south-1",
            "cn-south-2",
            "cn-south-4",
            "cn-southwest-2",
            "cn-southwest-3",
        ),
    ),
    CloudPartition(
        "Huawei Cloud, international",
        "{region}.myhuaweicloud.com",
        (
            "ae-ad-1",
            "af-north-1",
            "af-south-1",
            "ap-southeast-1",
            "ap-southeast-2",
            "ap-southeast-3",
            "ap-southeast-4",
            "ap-southeast-5",
            "la-north-2",
            "la-south-2",
            "me-east-1",
            "my-kualalumpur-1",
            "na-mexico-1",
            "ru-moscow-1",
            "ru-northwest-2",
            "sa-brazil-1",
            "sa-peru-1",
            "tr-west-1",
        ),
    ),
    CloudPartition("Huawei Cloud, Europe", "{region}.myhuaweicloud.eu", ("eu-west-101",)),
    CloudPartition("Open Telekom Cloud", "{region}.otc.t-systems.com", ("eu-de", "eu-nl")),
    CloudPartition("Open Telekom Cloud, Switzerland", "{region}.sc.otc.t-systems.com", ("eu-ch2",)),
)
_HUAWEI = ".myhuaweicloud."
_PARTITION_OF = {region: partition for partition in PARTITIONS for region in partition.regions}
# Hosts that do not begin as those of their service do elsewhere.
_OTHER_HOSTS: dict[tuple[Service, str], str] = {("iam", "eu-ch2"): "iam-pub"}


def partition_of(region: str) -> CloudPartition | None:
    """The cloud that a region belongs to; None if the region is not known."""
    return _PARTITION_OF.get(region)


def known_regions() -> str:
    """All known regions, cloud by cloud, for a message."""
    return "; ".join(f"{partition.name}: {', '.join(partition.regions)}" for partition in PARTITIONS)


def region_of_project(name: str | None) -> str | None:
    """The region in a project's name: these clouds call a project `eu-de` or `eu-de_team`. None if there is none."""
    region = (name or "").partition("_")[0]
    return region if region in _PARTITION_OF else None


def regional_endpoint(service: Service, region: str, stated_by: str) -> str:
    """The endpoint of a service in a region, without a path. `stated_by` says where the region's name is from.

    Raises:
        ConfigurationError: the region is not known; lists those that are.
    """
    partition = _PARTITION_OF.get(region)
    if partition is None:
        raise ConfigurationError(
            f"{stated_by} names the region {region!r}, which is not one of {known_regions()}: correct it, or set "
            + (
                "OS_AUTH_URL (auth_url in clouds.yaml) to the region's identity service."
                if service == "iam"
                else "IMAGE_SNAPSHOTS_ENDPOINT (`endpoint` in the projects file) to the region's ModelArts endpoint."
            )
        )
    host = _OTHER_HOSTS.get((service, region), _HOSTS[service])
    return f"https://{host}.{partition.domain.format(region=region)}"


def sibling_endpoint(service: Service, modelarts: str) -> str | None:
    """The endpoint of a service beside a ModelArts endpoint; None if it does not follow from that.

    A server on this machine plays all services of a cloud.
    """
    if is_on_loopback(modelarts):
        return modelarts
    parts = urlsplit(modelarts)
    first, _, rest = parts.netloc.partition(".")
    if first != _HOSTS["modelarts"] or not rest:
        return None
    region = rest.partition(".")[0]
    return f"{parts.scheme}://{_OTHER_HOSTS.get((service, region), _HOSTS[service])}.{rest}"


def region_of_host(host: str) -> str | None:
    """The region in the host of a ModelArts endpoint; None if it names none."""
    first, _, rest = host.partition(".")
    return (rest.partition(".")[0] or None) if first == _HOSTS["modelarts"] else None


def known_region(host: str) -> str | None:
    """The known region that a host of any service names; None if it names none."""
    return next((label for label in host.split(".") if label in _PARTITION_OF), None)


def is_of_another_cloud(bill: str, modelarts_host: str) -> bool:
    """Whether the endpoint of a bill is Huawei Cloud's, and the ModelArts endpoint is known to be another cloud's."""
    partition = _PARTITION_OF.get(known_region(modelarts_host) or "")
    return partition is not None and _HUAWEI not in partition.domain and _HUAWEI in urlsplit(bill).netloc


def usual_bill_endpoint(kind: str, modelarts_host: str) -> str:
    """The endpoint of the bill, by kind: one for all regions of a cloud, and one of Huawei Cloud for China."""
    if kind == "otc-dashboard":
        return "https://api-enterprise-dashboard.otc-service.com"
    partition = _PARTITION_OF.get(region_of_host(modelarts_host) or "")
    is_china = partition is None or partition is PARTITIONS[0]
    return f"https://{'bss' if is_china else 'bss-intl'}.myhuaweicloud.com"


def catalogue_endpoints(catalogue: Any, service: Service) -> dict[str, str]:
    """A service's public endpoints in the catalogue that a token brings, region -> endpoint without a path.

    The catalogue states addresses with the API's version and the project behind the host, and a service once for each
    version. Entries that are malformed, or that credentials must not be sent to, are left out.
    """
    found: dict[str, str] = {}
    for entry in _mappings(catalogue):
        named = {re.sub(r"[-_.]?v?[0-9.]*$", "", str(entry.get(key) or "").lower()) for key in ("type", "name")}
        if service not in named:
            continue
        for endpoint in _mappings(entry.get("endpoints")):
            region = endpoint.get("region") or endpoint.get("region_id")
            url = endpoint.get("url")
            if endpoint.get("interface") not in (None, "public") or not isinstance(region, str):
                continue
            if not isinstance(url, str):
                continue
            try:
                checked = check_endpoint(re.sub(r"/v[0-9.]+(/.*)?$", "", url), "")
            except ValueError:
                continue
            found.setdefault(region, checked)
    return found


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))
