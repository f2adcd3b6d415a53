"""How the command line imports many modules at once."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import in this block without garbage collection, and keep what is there then out of later collections.

    Imports make hundreds of thousands of objects, which stay to the end of the process. The collector would look
    through them again and again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        # DuckDB reports what is never freed as leaks, when the process ends.
        atexit.register(gc.unfreeze)
