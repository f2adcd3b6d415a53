"""Returns freed memory to the system, so that one step's memory is free for the next step."""

import ctypes

_C = ctypes.CDLL(None)
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 1 << 20

if hasattr(_C, "mallopt"):
    # Otherwise each thread's arena keeps about 30 MB, which trimming does not return.
    _C.mallopt(_M_ARENA_MAX, 1)
    # Otherwise the C library raises these thresholds as memory is freed, up to 64 MB.
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        _C.mallopt(option, _LARGE_BYTES)


def give_back_memory() -> None:
    """Return free memory to the system, if the C library has a call for that."""
    if hasattr(_C, "malloc_trim"):
        _C.malloc_trim(0)
