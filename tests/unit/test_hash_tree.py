"""The hash tree: its root by the definition of RFC 6962, and a path from each leaf to it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lake.hash_tree import path_of, root_from, root_of


def defined_root(leaves):
    """The root by the recursive definition of RFC 6962, section 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + defined_root(leaves[:split]) + defined_root(leaves[split:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_root_is_the_defined_one(leaves):
    assert root_of(leaves) == defined_root(leaves).hex()


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_path_of_each_leaf_leads_to_the_root_and_of_no_other_leaf(leaves, data):
    position = data.draw(st.integers(0, len(leaves) - 1))
    path = path_of(leaves, position)
    assert root_from(leaves[position], path) == root_of(leaves)
    assert root_from(leaves[position] + b"x", path) != root_of(leaves)


@pytest.mark.parametrize(("leaves", "steps"), [(1, 0), (2, 1), (3, 1), (1024, 10)])
def test_path_of_the_last_leaf_has_a_step_for_each_neighbour(leaves, steps):
    assert len(path_of([str(number).encode() for number in range(leaves)], leaves - 1)) == steps
