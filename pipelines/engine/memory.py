"""Gives freed memory back to the system, so that what one step has used does not lie beside what the next one uses."""

import ctypes

import pyarrow as pa

_C = ctypes.CDLL(None)
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 4 << 20

# Arrow's own allocators keep much of what was freed, too.
pa.set_memory_pool(pa.system_memory_pool())
if hasattr(_C, "mallopt"):
    # Each thread would get an arena that keeps some 30 MB at its end, whatever is trimmed.
    _C.mallopt(_M_ARENA_MAX, 1)
    # Or the C library raises these with what is freed, up to 64 MB.
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        _C.mallopt(option, _LARGE_BYTES)


def give_back_memory() -> None:
    """Let the C library return what is free, where it has a call for that."""
    if hasattr(_C, "malloc_trim"):
        _C.malloc_trim(0)
