"""What registries store, and what deleting images frees: SQL against a brute-force oracle on random layer graphs."""

import random
from collections import Counter

import pytest
from layer_graphs import expected_sets, expected_tags, graph, load

from pipelines.derive import storage
from pipelines.derive.storage import count_layers, free_sets
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.engine.sql_files import read_sql

GRAPHS = 1_000


@pytest.mark.parametrize("manifests_at_a_time", [storage.MANIFESTS_AT_A_TIME, 300])
def test_storage_equals_a_brute_force_oracle_on_random_layer_graphs(manifests_at_a_time, monkeypatch):
    monkeypatch.setattr(storage, "MANIFESTS_AT_A_TIME", manifests_at_a_time)
    graphs = [graph(seed) for seed in range(GRAPHS)]
    sizes, manifests, tags, unread, images, sets = ({}, {}, {}, set(), {}, {})
    for one in graphs:
        for whole, part in zip((sizes, manifests, tags, unread, images, sets), one, strict=True):
            whole.update(part)
    with DuckDBEngine() as engine:
        load(engine, sizes, manifests, tags, unread, images, sets)
        count_layers(engine)
        free_sets(engine)
        rows = engine.read(read_sql("derive/tag_storage.sql")).to_pylist()
        freed = {row["name"]: row["bytes"] for row in engine.read("SELECT * FROM freed_bytes").to_pylist()}
    found = {(row["namespace"], row["repository"], row["tag"]): row for row in rows}
    assert len(rows) == len(found) == len(tags)
    kinds = Counter()
    for sizes, manifests, tags, unread, images, sets in graphs:
        by_tag, partial = expected_tags(sizes, manifests, tags, unread)
        bytes_ = 0.0
        for key, (whole, unique, shared, share) in by_tag.items():
            row = found[key]
            assert (row["size_bytes"], row["unique_bytes"], row["shared_bytes"]) == (whole, unique, shared), key
            assert row["shared_bytes_share"] == (None if share is None else pytest.approx(float(share))), key
            kinds["known" if share is not None else "unknown"] += 1
            bytes_ += 0 if share is None else row["unique_bytes"] + row["shared_bytes_share"]
        if not partial:
            # The shares of all tags add up to what is stored.
            there = {layer for digest in tags.values() for layer in manifests[digest]}
            assert bytes_ == pytest.approx(sum(sizes[layer] for layer in there))
        expected = expected_sets(sizes, manifests, tags, partial, images, sets)
        assert {name: freed.get(name, 0) for name in sets} == expected
        kinds["freed"] += sum(one > 0 for one in expected.values())
    assert min(kinds["known"], kinds["unknown"], kinds["freed"]) > 300


def test_two_tags_of_one_manifest_have_no_layer_of_their_own():
    sizes, manifests = {"one": 5, "two": 7}, {"m": ("one", "two")}
    tags = {("a", "r", "latest"): "m", ("a", "r", "v1"): "m"}
    by_tag, _ = expected_tags(sizes, manifests, tags, set())
    assert by_tag == dict.fromkeys(tags, (12, 0, 12, 6))
    images = {"first": ("a", "r", "latest"), "second": ("a", "r", "v1")}
    sets = {"one": {"first"}, "both": {"first", "second"}}
    assert expected_sets(sizes, manifests, tags, set(), images, sets) == {"one": 0, "both": 12}
    with DuckDBEngine() as engine:
        load(engine, sizes, manifests, tags, set(), images, sets)
        count_layers(engine)
        free_sets(engine)
        rows = engine.read(read_sql("derive/tag_storage.sql")).to_pylist()
        assert [(row["unique_bytes"], row["shared_bytes_share"]) for row in rows] == [(0, 6), (0, 6)]
        assert engine.read("SELECT name, bytes FROM freed_bytes").to_pylist() == [{"name": "both", "bytes": 12}]


def test_shares_do_not_depend_on_the_order_of_the_layers():
    """Two runs must divide a bill alike, to the last place."""
    dice = random.Random(5)
    sizes = {f"layer-{number}": dice.randrange(10**9, 10**10) for number in range(24)}
    manifests = {f"m{number}": tuple(dice.sample(sorted(sizes), 12)) for number in range(7)}
    tags = {("a", "r", f"t{number}"): f"m{number}" for number in range(7)}
    found = set()
    with DuckDBEngine() as engine:
        for _ in range(10):
            shuffled = {digest: tuple(dice.sample(layers, len(layers))) for digest, layers in manifests.items()}
            load(engine, sizes, shuffled, tags, set(), {}, {})
            count_layers(engine)
            rows = engine.read(read_sql("derive/tag_storage.sql")).to_pylist()
            found.add(tuple(sorted((row["tag"], row["shared_bytes_share"]) for row in rows)))
    assert len(found) == 1
