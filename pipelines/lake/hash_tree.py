"""A hash tree: its root proves every leaf, and a path of hashes proves one leaf without showing another.

What the leaves are does not belong here. The tree is that of RFC 6962, section 2.1: SHA-256, a leaf hashed after a zero
byte, two nodes after a one byte, and a node without a neighbour rises as it is.
"""

import hashlib
from collections.abc import Iterable


def root_of(leaves: Iterable[bytes]) -> str:
    """The root of the tree, in hexadecimal; that of no leaves is the SHA-256 of nothing."""
    sha256 = hashlib.sha256
    # The roots of the whole subtrees so far, each larger than the next, like the ones of a binary number.
    subtrees: list[bytes] = []
    for number, leaf in enumerate(leaves):
        node = sha256(b"\0" + leaf).digest()
        ones = number
        while ones & 1:
            node = sha256(b"\1" + subtrees.pop() + node).digest()
            ones >>= 1
        subtrees.append(node)
    if not subtrees:
        return sha256().hexdigest()
    node = subtrees.pop()
    while subtrees:
        node = sha256(b"\1" + subtrees.pop() + node).digest()
    return node.hex()


def path_of(leaves: Iterable[bytes], position: int) -> list[tuple[str, str]]:
    """The path from a leaf to the root: for each step the side, `left` or `right`, and the hash of its neighbour.

    Takes memory for all hashes of leaves.
    """
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    path = []
    while len(level) > 1:
        neighbour = position ^ 1
        if neighbour < len(level):
            path.append(("left" if neighbour < position else "right", level[neighbour].hex()))
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
        level = above + level[len(above) * 2 :]
        position >>= 1
    return path


def root_from(leaf: bytes, path: Iterable[tuple[str, str]]) -> str:
    """The root that a leaf and its path lead to."""
    node = hashlib.sha256(b"\0" + leaf).digest()
    for side, neighbour in path:
        other = bytes.fromhex(neighbour)
        node = hashlib.sha256(b"\1" + (other + node if side == "left" else node + other)).digest()
    return node.hex()
