"""Gives freed memory back to the system, so that what one step has used does not lie beside what the next one uses."""

import ctypes

import pyarrow as pa

# Arrow's own allocators keep much of what was freed, too.
pa.set_memory_pool(pa.system_memory_pool())


def give_back_memory() -> None:
    """Let the C library return what is free, where it has a call for that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
