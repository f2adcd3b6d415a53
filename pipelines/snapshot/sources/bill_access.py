"""How the bill of a project is reached: what `snapshot.connection` knows of it, for `sources.bills`."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

from pipelines.cloud.dashboard import DashboardClient
from pipelines.cloud.service import ServiceClient


@dataclass(frozen=True, slots=True)
class BillAccess:
    """How to read the bill: `kind` is focus, otc-dashboard or huawei, `place` a directory or an endpoint.

    `region`: lines of other regions are not of this project; None for all. The functions open clients.
    """

    kind: str
    place: str
    key: SecretStr | None
    region: str | None
    open_dashboard: Callable[[SecretStr], DashboardClient]
    open_bill_lines: Callable[[], ServiceClient]
