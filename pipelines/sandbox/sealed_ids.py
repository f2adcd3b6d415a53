"""Ids that can be looked up without an index: each holds two numbers, enciphered, and a seal that proves it.

What the numbers mean is up to who asks for an id.
"""

import hashlib
import re

SLOT_BITS = 34
_GENERATION_BITS = 22
_SEAL_BITS = 122 - SLOT_BITS - _GENERATION_BITS
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def keyed_hash(key: bytes, purpose: str, number: int, generation: int = 0) -> bytes:
    """64 bytes that follow from the arguments alone."""
    return hashlib.blake2b(f"{purpose}{number}/{generation}".encode(), key=key, digest_size=64).digest()


class SealedIds:
    """The ids of one kind of thing: UUIDs of version 4, in lower case."""

    __slots__ = ("_key", "_mask_of", "_seal_of")

    def __init__(self, key: bytes, kind: str = "") -> None:
        self._key = key
        self._seal_of, self._mask_of = f"{kind}seal", f"{kind}mask"

    def id_of(self, slot: int, generation: int) -> str:
        """The id of a slot below 2**34 and a generation, of which the lowest 22 bits count."""
        number = slot << _GENERATION_BITS | (generation & (1 << _GENERATION_BITS) - 1)
        seal = self._seal(number)
        return uuid_of((number ^ self._mask(seal)) << _SEAL_BITS | seal)

    def find(self, text: str) -> tuple[int, int] | None:
        """Slot and generation of an id; None for what is none."""
        if not _UUID.fullmatch(text):
            return None
        bits = _bits_of(text)
        seal = bits & (1 << _SEAL_BITS) - 1
        number = bits >> _SEAL_BITS ^ self._mask(seal)
        if self._seal(number) != seal:
            return None
        return number >> _GENERATION_BITS, number & (1 << _GENERATION_BITS) - 1

    def _seal(self, number: int) -> int:
        digest = keyed_hash(self._key, self._seal_of, number)
        return int.from_bytes(digest[:16]) & (1 << _SEAL_BITS) - 1

    def _mask(self, seal: int) -> int:
        digest = keyed_hash(self._key, self._mask_of, seal)
        return int.from_bytes(digest[:8]) & (1 << SLOT_BITS + _GENERATION_BITS) - 1


def uuid_of(bits: int) -> str:
    """A UUID with these 122 free bits around the version and the variant of RFC 4122."""
    text = f"{bits >> 74:012x}4{bits >> 62 & 0xFFF:03x}{2 << 62 | bits & (1 << 62) - 1:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _bits_of(text: str) -> int:
    digits = text.replace("-", "")
    return int(digits[:12], 16) << 74 | int(digits[13:16], 16) << 62 | int(digits[16:], 16) & (1 << 62) - 1
