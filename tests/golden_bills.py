"""The expected bills of sandbox days, computed from the sandbox's own record of what is charged.

Plain Python with fractions over `sandbox.bills`: it shares neither SQL nor rounding with the product. What is
stored for images belongs to `golden_storage`.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipelines.sandbox.bills import Charge, statement
from pipelines.sandbox.catalogue import Catalogue

Row = dict[str, Any]
UNIT = Fraction(1, 10**12)
WINDOW = 35
MODELARTS, REGISTRY = "ModelArts", "Software Repository for Container"


def charges(catalogue: Catalogue, project_id: str, day: dt.date, seen: dt.date) -> list[Charge]:
    """The charges of a day that concern images, as the dashboard shows them on another day."""
    found = statement(catalogue, project_id, day, seen)
    return [
        one for one in found if one.days == 1 and one.project_id == project_id and one.name in (MODELARTS, REGISTRY)
    ]


def statements(catalogue: Catalogue, project_id: str, seen: dt.date) -> dict[dt.date, list[Charge]]:
    """The statements of the days before `seen` that it shows."""
    days = (seen - dt.timedelta(days=number) for number in reversed(range(1, WINDOW + 1)))
    return {day: found for day in days if (found := charges(catalogue, project_id, day, seen))}


def total(found: list[Charge], name: str | None = None) -> Decimal:
    """The sum of charges, of one service or of all."""
    return sum((one.billed for one in found if name in (None, one.name)), Decimal(0))


def new_statements(
    catalogue: Catalogue, project_id: str, seen: dt.date, before: dt.date | None
) -> dict[dt.date, list[Charge]]:
    """The statements that are not what they were on the day before."""
    known = statements(catalogue, project_id, before) if before else {}
    return {day: found for day, found in statements(catalogue, project_id, seen).items() if known.get(day) != found}


def weights(costs: list[Row], storage: Mapping[str, Row], tags: list[Row]) -> tuple[dict[str, int], dict[str, int]]:
    """The bytes that a bill is divided by: of images by id, and of what is not allocated by its reason."""
    images: dict[str, int] = {}
    others: defaultdict[str, int] = defaultdict(int)
    for row in costs:
        stored = storage.get(row["id"])
        state = stored and stored["state"]
        if stored and state == "known":
            share = stored["unique_bytes"] + stored["shared_bytes_share"]
            images[row["id"]] = int(share / stored["images_of_tag"])
        elif state in ("tag_gone", "elsewhere") or row["type"] == "BUILD_IN":
            images[row["id"]] = 0
        else:
            others["storage_unknown"] += row["size_bytes"] or 0
    for tag in tags:
        known = tag["unique_bytes"] is not None and tag["shared_bytes_share"] is not None
        own = tag["unique_bytes"] + tag["shared_bytes_share"] if known else tag["size_bytes"] or 0
        others["registry_only"] += int(own)
    return images, dict(others)


def check_weights(rows: list[Row], parts: Mapping[tuple[str, str], int], tags: int) -> None:
    """Check the bytes of rows against what they must be; of each tag one may lack, because shares have few places."""
    found = {(row["allocation"], row["id"]): row["weight_bytes"] for row in rows}
    assert found.keys() == parts.keys()
    for key, weight in found.items():
        assert abs(weight - parts[key]) <= (1 if key[0] == "image" else tags), key


def check_division(rows: list[Row], amount: Decimal, name: str) -> None:
    """Check that rows divide an amount by their bytes, all together exactly.

    Each row is right to the last of its 12 places, of two services added up.
    """
    assert sum((row[name] for row in rows), Decimal(0)) == amount
    all_bytes = sum(row["weight_bytes"] for row in rows)
    for row in rows:
        exact = Fraction(amount) * row["weight_bytes"] / all_bytes
        assert abs(Fraction(row[name]) - exact) <= 2 * UNIT, row


def expected_parts(images: Mapping[str, int], others: Mapping[str, int]) -> Iterator[tuple[tuple[str, str], int]]:
    """The bytes of each row, by its allocation and id."""
    yield from ((("image", id_), weight) for id_, weight in images.items())
    yield from (((reason, ""), weight) for reason, weight in others.items())


def check_bills(
    rows: list[Row], charged: Mapping[dt.date, list[Charge]], parts_of: Callable[[dt.date], Any], tags: int = 0
) -> None:
    """Check the rows of `image_bills` of a day against the statements that are new on it.

    `parts_of`: the bytes of each part of a charge day; or why it is not divided, in a word. `tags`: at most so many
    lack a byte in the weight of what is not allocated.
    """
    assert {row["charge_date"] for row in rows} == charged.keys()
    for day, found in charged.items():
        of_day = [row for row in rows if row["charge_date"] == day]
        amounts = {"billed_cost": total(found), "billed_registry_cost": total(found, REGISTRY)}
        parts = parts_of(day)
        if isinstance(parts, str):
            assert [(row["allocation"], row["id"]) for row in of_day] == [(parts, "")]
            assert {name: of_day[0][name] for name in amounts} == amounts
            continue
        check_weights(of_day, parts, tags)
        for name, amount in amounts.items():
            check_division(of_day, amount, name)
