"""The record of what is billed: the charges of each day, as a statement has them that is seen on a later day.

A statement comes two days after its day and is corrected two days later, so what is seen depends on both. How they are
sent belongs to `sandbox.bill_calls`.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import NamedTuple

from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.sealed_ids import uuid_of

# A tenant that the payer's key shows, too, and whose charges nobody may keep.
OTHER_TENANT = "sandbox-secret-tenant"
REGION = "eu-de"
CURRENCY = "EUR"

_COMES_AFTER, _CORRECTED_AFTER = timedelta(days=2), timedelta(days=4)
_PLACES = Decimal("0.000001")


class Charge(NamedTuple):
    """One line of a statement. `code` and `name` are of its service; `billed` is `listed` without `discount`.

    `days` is how long the charged period is: a day, or a month for what is paid in advance.
    """

    day: date
    project_id: str | None
    code: str
    name: str
    resource_id: str
    resource_name: str
    product: str
    listed: Decimal
    discount: Decimal
    days: int = 1

    @property
    def billed(self) -> Decimal:
        """What is to be paid."""
        return self.listed - self.discount


_REGISTRY = ("hws.service.type.swr", "Software Repository for Container")
_MODELARTS = ("hws.service.type.modelarts", "ModelArts")
_SERVERS = ("hws.service.type.ec2", "Elastic Cloud Server")


def statement(catalogue: Catalogue, project_id: str, day: date, seen: date) -> list[Charge]:
    """The charges of a day as seen on a later day; none before the statement has come.

    The first statement lacks a charge and has a wrong amount; the corrected one is right. The first of a month has a
    charge for the whole month.
    """
    if seen < day + _COMES_AFTER:
        return []
    is_corrected = seen >= day + _CORRECTED_AFTER
    return [charge for charge in _charges(catalogue, project_id, day, is_corrected) if charge.listed]


def _charges(catalogue: Catalogue, project_id: str, day: date, is_corrected: bool) -> Iterator[Charge]:
    ordinal = day.toordinal()

    def charge(number: int, service: tuple[str, str], name: str, product: str, most: int, days: int = 1) -> Charge:
        dice = catalogue.dice("charge", number, ordinal)
        # With 6 places: a statement is not in whole cents.
        listed = Decimal(1 + dice.roll(most * 1_000_000)) * _PLACES
        discount = (listed * dice.roll(20) / 100).quantize(_PLACES)
        resource_id = uuid_of(catalogue.dice("charged", number).roll(1 << 122))
        return Charge(day, project_id, *service, resource_id, name, product, listed, discount, days)

    storage = charge(0, _REGISTRY, "image-storage", "SWR storage", 9)
    yield storage if is_corrected else storage._replace(listed=storage.listed + Decimal("0.5"))
    yield charge(1, _REGISTRY, "image-traffic", "SWR outbound traffic", 2)
    yield charge(2, _MODELARTS, "notebook-7", "ModelArts notebook GPU hours", 40)
    if is_corrected:
        yield charge(3, _MODELARTS, "training-3", "ModelArts training GPU hours", 60)
    yield charge(4, _SERVERS, "web-1", "Virtual machine hours", 30)
    yield charge(5, _MODELARTS, "another-tenant", "ModelArts notebook hours", 500)._replace(
        project_id=OTHER_TENANT, resource_name=OTHER_TENANT
    )
    if day.day == 1:
        month = (day.replace(day=28) + timedelta(days=4)).replace(day=1) - day
        yield charge(6, _MODELARTS, "reserved-pool", "ModelArts reserved pool for a month", 900, month.days)
