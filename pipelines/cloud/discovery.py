"""Finds the ModelArts endpoint where none is stated: from the catalogue of a token, or else from the region.

How addresses follow from regions belongs to `cloud.regions`.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.cloud.credentials import Credentials, PasswordLogin, Region
from pipelines.cloud.issuing import Issuer
from pipelines.cloud.options import Limits, RetryPolicy, Timeouts
from pipelines.cloud.regions import catalogue_endpoints, known_regions, region_of_project, regional_endpoint
from pipelines.cloud.retries import Retries
from pipelines.cloud.sender import HTTPSender
from pipelines.cloud.throttle import Throttle
from pipelines.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class FoundEndpoint:
    """An endpoint that was not stated; `origin` says what it follows from, as the end of a sentence."""

    url: str
    origin: str


def regional(credentials: Credentials) -> FoundEndpoint | None:
    """The endpoint by the region alone, without any request; None if no region is known.

    Raises:
        ConfigurationError: the region is not known.
    """
    region = credentials.region
    if region is None:
        return None
    url = regional_endpoint("modelarts", region.name, region.stated_by)
    return FoundEndpoint(url, f"the region {region.name} ({region.stated_by})")


def find_endpoint(credentials: Credentials, timeouts: Timeouts, ca_bundle: Path | None) -> FoundEndpoint:
    """The endpoint in the catalogue that the token of a password brings, or else that of the region.

    Only the identity service is asked, with the login that is stated for it.

    Raises:
        ConfigurationError: neither is known; the message says what to state.
        PipelineError: the login is refused, or the identity service cannot be reached.
    """
    if isinstance(credentials, PasswordLogin):
        region, endpoints = asyncio.run(_catalogue(credentials, timeouts, ca_bundle))
        host = urlsplit(credentials.auth_url).netloc
        if region is None and len(endpoints) == 1:
            name = next(iter(endpoints))
        else:
            name = region.name if region is not None else ""
        if name in endpoints:
            return FoundEndpoint(endpoints[name], f"the catalogue of {host} (region {name})")
        if region is not None:
            url = regional_endpoint("modelarts", region.name, region.stated_by)
            return FoundEndpoint(url, f"the region {region.name} ({region.stated_by})")
        if endpoints:
            raise ConfigurationError(
                f"No endpoint and no region are stated, and the catalogue of {host} has ModelArts in several regions: "
                "set OS_REGION_NAME (region_name in clouds.yaml, `region` in the projects file) to one of "
                f"{', '.join(sorted(endpoints))}."
            )
    found = regional(credentials)
    if found is None:
        raise ConfigurationError(
            f"No endpoint and no region are stated beside the {credentials.source}: set OS_REGION_NAME (region_name in "
            f"clouds.yaml, `region` in the projects file) to one of {known_regions()}; or set IMAGE_SNAPSHOTS_ENDPOINT "
            "(`endpoint` in the projects file)."
        )
    return found


async def _catalogue(
    login: PasswordLogin, timeouts: Timeouts, ca_bundle: Path | None
) -> tuple[Region | None, dict[str, str]]:
    """The region that is meant, which the project's name may tell, and ModelArts' endpoints by region."""
    sender = HTTPSender(Limits(connections=1), timeouts, ca_bundle or login.ca_bundle)
    throttle = Throttle(None)
    retries = Retries(urlsplit(login.auth_url).netloc, throttle, None, sender, timeouts, RetryPolicy())
    token = await Issuer(sender, retries).token(login, timeouts.first_contact, is_first=True)
    region = login.region
    if region is None and (name := region_of_project(token.project_name)) is not None:
        region = Region(name, f"the project's name {token.project_name}")
    return region, catalogue_endpoints(token.catalogue, "modelarts")
