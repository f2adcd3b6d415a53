"""What a process and all that it starts hold and use, read from /proc while they run."""

import re
from collections.abc import Iterator
from pathlib import Path


def family(pid: int) -> Iterator[int]:
    """A process and all that it started; OSError if one of them has just ended."""
    yield pid
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            # Until it starts another program, a child shares its parent's memory, which counts once.
            if Path(f"/proc/{child}/cmdline").read_bytes() != command:
                yield from family(int(child))


def resident_mb(pid: int) -> float:
    """The resident memory of one process, in MB; zero if it has ended and nobody waited for it."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
