"""The division of bills among images: SQL against fractions, on random bills, images and layer graphs."""

import datetime as dt
import random
from collections import Counter, defaultdict
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_graphs import expected_tags, graph, load

from pipelines.derive.storage import count_layers
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.engine.sql_files import read_sql
from pipelines.tables import BILLED_COSTS, IMAGE_BILLS, IMAGE_COSTS, IMAGE_STORAGE, REGISTRY_ONLY

DAY = dt.date(2026, 3, 29)
UNIT = Fraction(1, 10**12)
KEYS = {"snapshot_date": DAY, "project_id": "p1"}
STATES = ("known", "partial", "unread", "tag_gone", "elsewhere")


@pytest.fixture(scope="module")
def engine():
    with DuckDBEngine() as opened:
        yield opened


def load_rows(engine, table, rows):
    # Columns that the division does not read are null.
    schema = pa.schema([field.with_nullable(True) for field in table.schema])
    engine.load(table.name, pa.Table.from_pylist([KEYS | row for row in rows], schema))


def divide(engine, images, tags, registry, modelarts):
    """The rows of `image_bills` for amounts in units; `images` and `tags` are rows of their tables, joined by id."""
    load_rows(engine, IMAGE_COSTS, images)
    load_rows(engine, IMAGE_STORAGE, [image for image in images if image["state"] is not None])
    load_rows(engine, REGISTRY_ONLY, tags)
    units = pa.decimal128(38, 0)
    charge = {"charge_date": DAY, "currency": "EUR", "version": "v", **KEYS}
    loaded = pa.table({name: [value] for name, value in charge.items()})
    for name, value in (("registry_units", registry), ("modelarts_units", modelarts)):
        loaded = loaded.append_column(name, pa.array([Decimal(value)], units))
    engine.load("charge", loaded)
    found = pa.Table.from_batches(engine.stream(read_sql("cost/image_bills.sql"), IMAGE_BILLS.schema))
    for name in ("billed_cost", "billed_registry_cost"):
        assert found.schema.field(name).type == pa.decimal128(28, 12)
    return found.to_pylist()


def weights(images, tags):
    """The bytes of each row by fractions: (allocation, id) -> bytes; each tag in whole bytes."""
    found = defaultdict(int)
    for image in images:
        if image["state"] == "known":
            stored = Fraction(image["unique_bytes"]) + Fraction(image["shared_bytes_share"])
            found["image", image["id"]] = int(stored / image["images_of_tag"])
        elif image["state"] in ("tag_gone", "elsewhere") or image["type"] == "BUILD_IN":
            found["image", image["id"]] = 0
        else:
            found["storage_unknown", ""] += image["size_bytes"] or 0
    for tag in tags:
        known = None not in (tag["unique_bytes"], tag["shared_bytes_share"])
        stored = (
            Fraction(tag["unique_bytes"]) + Fraction(tag["shared_bytes_share"]) if known else tag["size_bytes"] or 0
        )
        found["registry_only", ""] += int(stored)
    return dict(found)


def check(rows, weight_of, registry, modelarts):
    """Check that rows divide two amounts, in units: exactly in sum, and each row to the last place."""
    assert sum((row["billed_registry_cost"] for row in rows), Decimal(0)) == Decimal(registry).scaleb(-12)
    assert sum((row["billed_cost"] for row in rows), Decimal(0)) == Decimal(registry + modelarts).scaleb(-12)
    whole = sum(weight_of.values())
    if not whole:
        assert {row["billed_cost"] for row in rows if row["allocation"] != "nothing_stored"} <= {0}
        weight_of = weight_of | {("nothing_stored", ""): 0}
    assert {(row["allocation"], row["id"]): row["weight_bytes"] for row in rows} == weight_of
    for row in rows if whole else ():
        part = Fraction(row["weight_bytes"], whole)
        assert abs(Fraction(row["billed_registry_cost"]) - registry * UNIT * part) < UNIT
        assert abs(Fraction(row["billed_cost"]) - (registry + modelarts) * UNIT * part) < 2 * UNIT
    # Equal images have equal parts, but for the last place of each service.
    by_weight = defaultdict(list)
    for row in rows:
        if row["allocation"] == "image":
            by_weight[row["weight_bytes"]].append(row["billed_cost"])
    assert all(max(parts) - min(parts) <= 2 * Decimal("1e-12") for parts in by_weight.values())


AMOUNTS = st.one_of(
    st.sampled_from([0, 1, -1, 10**12, -(10**12), 4 * 10**27, -4 * 10**27]),
    st.integers(-(10**15), 10**15),
    st.integers(-(10**27), 10**27),
)
BYTES = st.one_of(st.sampled_from([0, 1, 2**20, 2**48]), st.integers(0, 2**44))
# Of so few places that floats hold their sums.
SHARES = st.integers(0, 2**40).map(lambda eighths: eighths / 8)


@st.composite
def images_of_a_day(draw):
    images = []
    for number in range(draw(st.integers(0, 8))):
        state = draw(st.sampled_from([*STATES, "known", "known", None]))
        image = {
            "id": f"image-{number:02}",
            "state": state,
            "type": draw(st.sampled_from(["BUILD_IN", "DEDICATED", None])),
        }
        image["size_bytes"] = draw(st.one_of(st.none(), BYTES))
        if state == "known":
            image |= {"unique_bytes": draw(BYTES), "shared_bytes_share": draw(SHARES)}
            image["images_of_tag"] = draw(st.integers(1, 3))
        images.append(image)
        if draw(st.booleans()) and state == "known":
            # An equal one.
            images.append(image | {"id": f"image-{number:02}-twin"})
    return images


TAGS = st.builds(
    dict,
    unique_bytes=st.one_of(st.none(), BYTES),
    shared_bytes_share=st.one_of(st.none(), SHARES),
    size_bytes=st.one_of(st.none(), BYTES),
)


@settings(max_examples=40, deadline=None)
@given(
    images=images_of_a_day(), tags=st.lists(TAGS, max_size=4), registry=AMOUNTS, modelarts=AMOUNTS, order=st.randoms()
)
def test_parts_of_any_bill_add_up_to_it(engine, images, tags, registry, modelarts, order):
    tags = [tag | {"namespace": "n", "repository": "r", "tag": str(number)} for number, tag in enumerate(tags)]
    rows = divide(engine, images, tags, registry, modelarts)
    check(rows, weights(images, tags), registry, modelarts)
    order.shuffle(images)
    order.shuffle(tags)
    assert divide(engine, images, tags, registry, modelarts) == rows


@settings(max_examples=40, deadline=None)
@given(
    lines=st.lists(
        st.tuples(
            st.integers(-(10**24), 10**24).map(lambda units: Decimal(units).scaleb(-12)),
            st.sampled_from(["registry", "modelarts"]),
            st.sampled_from(["EUR", "CNY"]),
            st.sampled_from([23, 24, 25, 31 * 24]),
            st.one_of(st.none(), st.decimals(-5, 5, places=12)),
        ),
        max_size=8,
    ),
    order=st.randoms(),
)
def test_statement_sums_its_lines_by_currency(engine, lines, order):
    def read():
        start = dt.datetime.combine(DAY, dt.time(), dt.UTC)
        load_rows(
            engine,
            BILLED_COSTS,
            [
                {
                    "charge_date": DAY,
                    "charge_period_start": start,
                    "charge_period_end": start + dt.timedelta(hours=hours),
                    "time_zone": "UTC",
                    "kind": kind,
                    "currency": currency,
                    "list_cost": listed,
                    "billed_cost": billed,
                    "version": "v",
                }
                for billed, kind, currency, hours, listed in lines
            ],
        )
        return engine.read(read_sql("cost/bill_statements.sql")).to_pylist()

    expected = []
    for currency in sorted({line[2] for line in lines}):
        of_it = [line for line in lines if line[2] == currency]

        def total(of_it, kinds=("registry", "modelarts"), hours=0):
            return sum((line[0] for line in of_it if line[1] in kinds and line[3] > hours), Decimal(0))

        listed = [line[4] for line in of_it]
        expected.append(
            {
                "charge_date": DAY,
                "currency": currency,
                "billed_cost": total(of_it),
                "billed_registry_cost": total(of_it, ["registry"]),
                "long_cost": total(of_it, hours=25),
                "long_registry_cost": total(of_it, ["registry"], 25),
                "list_cost": None if None in listed else sum(listed),
                "contracted_cost": None,
                "lines": len(of_it),
                "time_zone": "UTC",
                "version": "v",
            }
        )
    assert read() == expected
    order.shuffle(lines)
    assert read() == expected


def test_bills_are_divided_by_the_layers_of_random_graphs(engine):
    dice = random.Random(16)
    kinds = Counter()
    for seed in range(60):
        sizes, manifests, tags, unread, images, sets = graph(seed)
        load(engine, sizes, manifests, tags, unread, images, sets)
        count_layers(engine)
        stored = {
            (row.pop("namespace"), row.pop("repository"), row.pop("tag")): row
            for row in engine.read(read_sql("derive/tag_storage.sql")).to_pylist()
        }
        by_tag, partial = expected_tags(sizes, manifests, tags, unread)
        of_tag = Counter(images.values())
        rows = [
            {"id": id_, "type": "DEDICATED", "state": "partial" if at[0] in partial else "known", "size_bytes": 10**9}
            | {name: stored[at][name] for name in ("unique_bytes", "shared_bytes_share")}
            | {"images_of_tag": of_tag[at]}
            for id_, at in images.items()
        ]
        others = [
            dict(zip(("namespace", "repository", "tag"), at, strict=True))
            | {name: stored[at][name] for name in ("unique_bytes", "shared_bytes_share", "size_bytes")}
            for at in tags
            if at not in of_tag
        ]
        registry, modelarts = (dice.choice((0, 1, -7, dice.randrange(10**14), -dice.randrange(10**13))) for _ in "12")
        divided = divide(engine, rows, others, registry, modelarts)
        found = {(row["allocation"], row["id"]): row["weight_bytes"] for row in divided}
        check(
            divided, {key: weight for key, weight in found.items() if key[0] != "nothing_stored"}, registry, modelarts
        )
        # By brute force: of each layer its bytes, divided by the tags that have it; a fraction of a byte may lack.
        for id_, at in images.items():
            _, unique, _, share = by_tag[at]
            if at[0] not in partial:
                assert 0 <= (unique + share) / of_tag[at] - found["image", id_] < 1 + Fraction(1, 10**6)
                kinds["known"] += 1
            else:
                assert ("image", id_) not in found
                kinds["unknown"] += 1
        kinds["nothing stored"] += not sum(found.values())
    assert min(kinds.values()) >= 3
    assert kinds["known"] > 100
